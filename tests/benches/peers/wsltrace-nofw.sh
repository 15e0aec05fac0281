# without the nftables table that names rules
CMD=(wsltrace --port "$PORT" --all --no-firewall-trace)
READY="watching port"
lost() { grep -i lost $ERR; }
