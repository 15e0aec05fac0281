# every attempt, text, as somebody would start it
CMD=(wsltrace --port "$PORT" --all)
READY="watching port"
lost() { grep -i lost $ERR; }
