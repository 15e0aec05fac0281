# every attempt, text, all 31 positions (the default)
CMD=(wsltrace --port "$PORT" --all --detail full)
READY="watching port"
lost() { grep -i lost $ERR; }
