# all 31 positions a family
CMD=(wsltrace --port "$PORT" --all --detail full)
READY="watching port"
lost() { grep -i lost $ERR; }
