package shaker

import (
	"context"
	"net"
	"slices"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	clog "github.com/coredns/coredns/plugin/pkg/log"
)

// standIn adds to a context what plugins expect to find in that of a query to a key of the server block.
//
// That is first of all the server, which they ask again: file, for one, when a CNAME leads out of its zone.
// The real one cannot be had without a query, so this one has the same server blocks and handlers and just
// does not listen.
func (s *Shaker) standIn(ctx context.Context, key *dnsserver.Config) context.Context {
	var group []*dnsserver.Config
	for _, other := range s.besides(key) {
		group = append(group, standInConfig(other))
	}
	server, err := dnsserver.NewServer(key.Transport+"://"+net.JoinHostPort(key.ListenHosts[0], key.Port), group)
	if err != nil {
		log.Errorf("What is behind CNAMEs of names that are looked up cannot be looked up: %v", err)
		return ctx
	}
	ctx = context.WithValue(ctx, dnsserver.Key{}, server)
	ctx = context.WithValue(ctx, dnsserver.LoopKey{}, 0)
	if key.ViewName != "" {
		ctx = context.WithValue(ctx, dnsserver.ViewKey{}, key.ViewName)
	}
	return ctx
}

// besides returns the keys of all server blocks that listen at the first address of a key, that included.
func (s *Shaker) besides(key *dnsserver.Config) (group []*dnsserver.Config) {
	for _, other := range s.near {
		if other.Transport == key.Transport && other.Port == key.Port && slices.Contains(other.ListenHosts, key.ListenHosts[0]) {
			group = append(group, other)
		}
	}
	return group
}

// configs returns those of all zones in all server blocks. CoreDNS gives them by index only. For an index
// that does not exist it makes an empty one; the real servers exist already and do not see that.
func configs(c *caddy.Controller) (all []*dnsserver.Config) {
	at := *c
	for at.ServerBlockIndex = 0; ; at.ServerBlockIndex++ {
		for at.ServerBlockKeyIndex = 0; ; at.ServerBlockKeyIndex++ {
			cfg := dnsserver.GetConfig(&at)
			if cfg.Zone != "" {
				all = append(all, cfg)
				continue
			}
			if at.ServerBlockKeyIndex == 0 {
				return all
			}
			break
		}
	}
}

// standInConfig returns a copy of cfg whose chain consists of the handlers that cfg has already.
func standInConfig(cfg *dnsserver.Config) *dnsserver.Config {
	stand := &dnsserver.Config{
		Zone:        cfg.Zone,
		FilterFuncs: cfg.FilterFuncs,
		ViewName:    cfg.ViewName,
		// A server switches the debug log on or off for the whole process.
		Debug: clog.D.Value(),
	}
	for _, h := range cfg.Handlers() {
		stand.AddPlugin(func(plugin.Handler) plugin.Handler { return h })
	}
	return stand
}
