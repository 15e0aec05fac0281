# seven positions a family
CMD=(wsltrace --port "$PORT" --all --detail light)
READY="watching port"
lost() { grep -i lost $ERR; }
