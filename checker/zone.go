package checker

import (
	"net"
	"strconv"
)

// zoneIndex turns the zone of a scoped IPv6 address (RFC 4007, section 11) into an interface index.
func zoneIndex(zone string) (uint32, error) {
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), nil
	}
	i, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, err
	}
	return uint32(i.Index), nil
}
