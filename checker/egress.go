package checker

// egress is how packets leave this machine, where that is not left to the routing table.
type egress struct {
	device string // name of an interface
	mark   uint32
}

func (o *Config) egress() egress { return egress{device: o.Interface, mark: o.Mark} }
