package checker

// egress is how packets leave this machine. The zero value leaves that to the routing table.
type egress struct {
	device string // name of an interface
	mark   uint32
}

func (o *Config) egress() egress { return egress{device: o.Interface, mark: o.Mark} }
