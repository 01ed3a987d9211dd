module pyshimio/bench/peer

go 1.21
