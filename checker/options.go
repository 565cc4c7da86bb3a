package checker

import "time"

// Options are what CheckAddrWithOptions can be asked for. DefaultOptions is where to start from.
type Options struct {
	// Timeout bounds the check, resolution included. Where it is not positive the check fails with ErrTimeout.
	Timeout time.Duration
	// Network is "tcp4" or "tcp6" for one family alone. With "tcp" or "" a name's IPv4 addresses come first.
	Network string
	// ZeroLinger is the choice of NewCheckerZeroLinger.
	ZeroLinger bool
}

// DefaultOptions are three seconds, either family, and a RST instead of a FIN.
func DefaultOptions() Options {
	return Options{Timeout: 3 * time.Second, Network: "tcp", ZeroLinger: true}
}

// WithTimeout returns a copy with another Timeout.
func (o Options) WithTimeout(timeout time.Duration) Options {
	o.Timeout = timeout
	return o
}

// WithNetwork returns a copy with another Network.
func (o Options) WithNetwork(network string) Options {
	o.Network = network
	return o
}

// WithZeroLinger returns a copy with another ZeroLinger.
func (o Options) WithZeroLinger(zeroLinger bool) Options {
	o.ZeroLinger = zeroLinger
	return o
}
