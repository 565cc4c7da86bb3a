package peers

import (
	"log"
	"time"

	"github.com/hashicorp/memberlist"
)

// settings are those of memberlist, which does one thing here: it knows who is a member. What members tell each other goes
// past it, see [transport].
func settings(name string, t memberlist.Transport, logger *log.Logger) *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.Name = name
	c.Transport = t
	c.Logger = logger
	c.TCPTimeout = 5 * time.Second
	c.HandoffQueueDepth = 8192
	c.EnableCompression = false // it costs three times the CPU
	return c
}
