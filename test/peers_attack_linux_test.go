package test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// verdictsHold expects that nothing that strangers have done since a time has changed a verdict, and that all members know
// each other still.
func (g *group) verdictsHold(t *testing.T, began time.Time) {
	t.Helper()
	g.untilKnown()
	g.untilRight()
	g.noChange(t, began, g.running()...)
}

// noChange expects that no verdict has changed at replicas since a time.
func (g *group) noChange(t *testing.T, began time.Time, replicas ...*node) {
	t.Helper()
	for _, r := range replicas {
		for _, kind := range []string{"down", "up"} {
			if n := len(r.follow.since(began, kind)); n > 0 {
				t.Errorf("%s has %d events of kind %s", r.name, n, kind)
			}
		}
	}
}

// peerLines returns the lines that a replica has logged since it had logged so many.
func (r *node) peerLines(skip int) (lines []string) {
	all := strings.Split(strings.TrimSpace(r.p.Log.String()), "\n")
	return all[min(skip, len(all)):]
}

// A replica with other settings and one with another key are of no weight: the log tells of both, and the others go on as
// before.
func TestLabPeersOdd(t *testing.T) {
	t.Parallel()
	lab.Run(t, func(t *testing.T, l *lab.Lab) {
		g := newGroup(t, l, plan{replicas: 5, more: func(i int) string {
			if i == 3 {
				return "rise 3"
			}
			return ""
		}})
		other, stranger := g.replicas[3], g.replicas[4]
		stranger.writeKeys("the key of another lab altogether")
		for _, r := range g.replicas[:3] {
			r.launch()
		}
		for _, r := range g.replicas[:3] {
			r.awaitServing()
			r.awaitReady()
		}
		g.untilWell()
		g.silence(g.pick(0, 0, 5)...)
		g.untilRight()
		began := time.Now()

		other.start()
		other.awaitReady()
		g.untilRight()
		lab.UntilNil(t, func() error {
			for _, r := range g.replicas[:3] {
				strange := 0
				for _, m := range r.peers().Members {
					if m.Strange && m.Address == other.peerAddress().String() {
						strange++
					}
				}
				if strange != 1 {
					return fmt.Errorf("%s takes %d members for strange, want one", r.name, strange)
				}
			}
			return nil
		})
		g.untilKnown()
		g.noChange(t, began, g.replicas[:3]...)
		for _, r := range g.replicas[:3] {
			if n := r.counted("coredns_shaker_peers_observed_targets"); n != float64(len(g.addrs)) {
				t.Errorf("%s checks %v targets, want all", r.name, n)
			}
		}

		stranger.start()
		lab.Until(t, "the stranger to be rejected", func() bool {
			return g.replicas[0].counted("coredns_shaker_peers_rejected_total", `reason="key"`) > 0
		})
		time.Sleep(lasting(2*time.Second, 30*time.Second))
		if n := stranger.peers().alive(); n != 1 {
			t.Errorf("the one with another key hears of %d members", n)
		}
		for _, r := range g.replicas[:3] {
			if n := r.peers().alive(); n != 4 {
				t.Errorf("%s hears of %d members, want 4", r.name, n)
			}
		}
		for _, tt := range []struct {
			r     *node
			words []string
		}{
			{g.replicas[0], []string{other.peerAddress().String(), "has other settings"}},
			{other, []string{g.replicas[0].peerAddress().String(), "has other settings"}},
			{g.replicas[0], []string{"refused (key", "The last was from " + stranger.host.Addr4.String()}},
			{stranger, []string{g.replicas[0].peerAddress().String(), "has other keys"}},
		} {
			if n := tt.r.logged(tt.words...); n == 0 {
				t.Errorf("%s has no line with %q in its log:\n%s", tt.r.name, tt.words, tt.r.p.Log.String())
			}
		}
		stranger.stop()
		g.noChange(t, began, g.replicas[:3]...)
	})
}

// Whoever hears all that replicas say to each other reads nothing in it, and changes nothing by saying it again.
func TestLabPeersReplay(t *testing.T) {
	overFamilies(t, plan{replicas: 3, more: func(int) string { return "peers site frankfurt" }}, func(t *testing.T, g *group) {
		victim := g.replicas[1]
		tape := victim.host.Tape(groupPeers)
		dying := g.pick(0, 0, 5)
		g.silence(dying...)
		g.untilRight()
		g.revive(dying...)
		g.untilRight()
		other := g.replicas[2]
		other.stop()
		other.start()
		g.untilKnown()
		g.untilRight()
		time.Sleep(time.Second)
		tape.Stop()

		host, err := os.Hostname()
		if err != nil {
			t.Fatal(err)
		}
		secrets := [][]byte{[]byte("frankfurt"), []byte(host), []byte("example"), []byte(groupKey)}
		for _, addr := range dying {
			secrets = append(secrets, addr.AsSlice(), []byte(addr.String()))
		}
		var heard [][]byte
		octets := 0
		for _, p := range tape.Packets() {
			octets += len(p.Payload)
			for _, secret := range secrets {
				// Four octets are in so many packets by chance.
				if len(secret) > 4 && bytes.Contains(p.Payload, secret) {
					t.Errorf("%q is in clear in a packet from %v to %v", secret, p.Src, p.Dst)
				}
			}
			if p.Protocol == 17 && p.Dst == victim.peerAddress() {
				heard = append(heard, lab.Datagram(p.Src, p.Dst, p.Payload))
			}
		}
		t.Logf("%d packets with %d octets were heard, %d of them are played again", len(tape.Packets()), octets, len(heard))
		if len(heard) < 10 {
			t.Error("that is too little")
		}
		began := time.Now()
		for range 3 {
			victim.host.Play(heard...)
			time.Sleep(300 * time.Millisecond)
		}
		g.verdictsHold(t, began)
	})
}

// Strangers hold hundreds of connections, send what is no message, and thousands of packets a second. Replicas answer as
// many queries as without, log a line a second at most, and take a new member in.
func TestLabPeersFlood(t *testing.T) {
	overFamilies(t, plan{replicas: 3, six: true}, func(t *testing.T, g *group) {
		victim := g.replicas[0]
		stranger := g.l.Host("stranger")
		quiet := g.queriesFor(lasting(2*time.Second, 10*time.Second), victim)

		conns := g.connect(stranger, victim, 500)
		for i, c := range conns {
			if i%10 == 0 {
				var b [200]byte
				rand.Read(b[:])
				c.Write(b[:]) // who does not want it may have closed the connection
			}
		}
		open := 0
		for _, c := range conns {
			c.SetReadDeadline(time.Now().Add(time.Millisecond))
			if _, err := c.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
				open++
			}
		}
		files := victim.descriptors()
		t.Logf("%d of 500 connections of a stranger are open still; the replica has %d descriptors", open, files)
		if open > 128 || files > 300 {
			t.Errorf("%d connections of strangers are kept, and %d descriptors are in use", open, files)
		}
		g.replicas[2].stop()
		g.replicas[2].start()
		g.untilKnown()
		g.untilRight()
		began := time.Now()

		before := len(victim.peerLines(0))
		ends := g.flood(stranger, victim, 20_000)
		loud := g.queriesFor(lasting(3*time.Second, 20*time.Second), victim)
		flooded := time.Since(began)
		sent := ends()
		lines := victim.peerLines(before)
		t.Logf("answered: %.1f %% before, %.1f %% under %.0f packets a second; %d lines in the log meanwhile:\n%s", 100*quiet, 100*loud,
			float64(sent)/flooded.Seconds(), len(lines), strings.Join(lines[:min(5, len(lines))], "\n"))
		if loud < 0.97*quiet {
			t.Errorf("%.3f of the queries are answered, without the flood %.3f", loud, quiet)
		}
		if float64(len(lines)) > flooded.Seconds()+2 {
			t.Errorf("%d lines in the log in %v, want one a second", len(lines), flooded)
		}
		for _, c := range conns {
			c.Close()
		}
		g.verdictsHold(t, began)
		t.Logf("rejected: %v", victim.peers().Counts.Rejected)
	})
}

// queriesFor asks a replica 500 times a second, and returns which part is answered in time.
func (g *group) queriesFor(d time.Duration, r *node) float64 {
	w := g.newTraffic(500, func(o *node) bool { return o == r })
	time.Sleep(d)
	n := w.end()
	return float64(n.queries-n.silent) / float64(n.queries)
}

// connect opens connections from a host to a replica, as many as are taken.
func (g *group) connect(from *lab.Host, to *node, n int) (conns []net.Conn) {
	g.t.Helper()
	for range n {
		var c net.Conn
		var err error
		from.Do(func() { c, err = net.DialTimeout("tcp", to.peerAddress().String(), 2*time.Second) })
		if err != nil {
			if !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, os.ErrDeadlineExceeded) {
				g.t.Logf("a stranger's connection: %v", err)
			}
			break
		}
		g.t.Cleanup(func() { c.Close() })
		conns = append(conns, c)
	}
	return conns
}

// flood sends packets from a host to a replica, so many a second, and returns what ends it. That returns how many were sent.
func (g *group) flood(from *lab.Host, to *node, rate int) (end func() int) {
	g.t.Helper()
	var c net.Conn
	var err error
	from.Do(func() { c, err = net.Dial("udp", to.peerAddress().String()) })
	if err != nil {
		g.t.Fatal(err)
	}
	stop := make(chan struct{})
	var ended sync.WaitGroup
	sent := 0
	ended.Go(func() {
		defer c.Close()
		var b [400]byte
		io.ReadFull(rand.Reader, b[:])
		ticks := time.NewTicker(5 * time.Millisecond)
		defer ticks.Stop()
		for began := time.Now(); ; {
			select {
			case <-stop:
				return
			case <-ticks.C:
			}
			for want := int(time.Since(began).Seconds() * float64(rate)); sent < want; sent++ {
				b[sent%len(b)]++
				c.Write(b[:100+sent%300])
			}
		}
	})
	return func() int {
		close(stop)
		ended.Wait()
		return sent
	}
}

// With allow, only those that are named may speak at all: a stranger's packets and connections are counted and end at once.
func TestLabPeersAllow(t *testing.T) {
	// Replicas are the hosts after the racks.
	const allow = "peers allow 198.18.5.0/24 198.18.6.0/24 198.18.7.0/24 2001:db8:5::/64 2001:db8:6::/64 2001:db8:7::/64"
	overFamilies(t, plan{replicas: 3, more: func(int) string { return allow }}, func(t *testing.T, g *group) {
		began := time.Now()
		victim := g.replicas[0]
		stranger := g.l.Host("stranger")
		for _, c := range g.connect(stranger, victim, 10) {
			c.SetReadDeadline(time.Now().Add(5 * time.Second))
			if _, err := c.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("a connection of a stranger is kept")
			}
		}
		ends := g.flood(stranger, victim, 1000)
		lab.Until(t, "rejected packets", func() bool {
			return victim.counted("coredns_shaker_peers_rejected_total", `reason="source"`) > 100
		})
		ends()
		for _, reason := range []string{"key", "format"} {
			if n := victim.counted("coredns_shaker_peers_rejected_total", fmt.Sprintf("reason=%q", reason)); n > 0 {
				t.Errorf("%v packets were looked into and rejected for their %s", n, reason)
			}
		}
		g.verdictsHold(t, began)
	})
}

// Keys change while the replicas run, as docs/peers.md says: nobody is lost.
func TestLabPeersKeys(t *testing.T) {
	overFamilies(t, plan{replicas: 3, six: true}, func(t *testing.T, g *group) {
		const next = "the key of tomorrow"
		began := time.Now()
		for _, keys := range [][]string{{groupKey, next}, {next, groupKey}, {next}} {
			for _, r := range g.replicas {
				r.writeKeys(keys...)
				lab.Until(t, r.name+" to read the keys", func() bool {
					return len(r.keyEvents(began)) > 0
				})
			}
			began = time.Now()
			time.Sleep(lasting(1500*time.Millisecond, 10*time.Second))
			for _, r := range g.replicas {
				if n := r.peers().alive(); n != 3 {
					t.Errorf("%s hears of %d members with keys %q", r.name, n, keys)
				}
				for _, e := range r.follow.since(began, "peer") {
					if strings.Contains(e.Text, "lost") || strings.Contains(e.Text, "silent") {
						t.Errorf("%s: %s", r.name, e.Text)
					}
				}
			}
		}
		dying := g.pick(0, 0, 2)
		g.silence(dying...)
		g.untilRight()
		// The old key is of no use any more.
		late := g.replicas[2]
		late.stop()
		late.writeKeys(groupKey)
		late.start()
		lab.Until(t, "the one with the old key to be rejected", func() bool {
			return g.replicas[0].counted("coredns_shaker_peers_rejected_total", `reason="key"`) > 0
		})
		if n := late.peers().alive(); n != 1 {
			t.Errorf("with the old key it hears of %d members", n)
		}
	})
}

func (r *node) keyEvents(began time.Time) (found []happening) {
	for _, e := range r.follow.since(began, "peer") {
		if strings.Contains(e.Text, "key") {
			found = append(found, e)
		}
	}
	return found
}

// Reloads that work and reloads that fail: no member is lost, and nothing is left over.
func TestLabPeersReloads(t *testing.T) {
	t.Parallel()
	lab.Run(t, func(t *testing.T, l *lab.Lab) {
		g := newGroup(t, l, plan{replicas: 3})
		g.startAll()
		g.untilWell()
		r := g.replicas[0]
		good := r.corefile()
		reload := func(corefile string) {
			lab.FileIn(t, r.dir, "Corefile", corefile)
			before := len(r.follow.since(time.Time{}, "reload"))
			r.p.Signal(syscall.SIGUSR1)
			lab.Until(t, "the end of a reload", func() bool { return len(r.follow.since(time.Time{}, "reload")) > before })
		}
		reload(good)
		time.Sleep(6 * time.Second) // old servers may take five seconds to end
		began := time.Now()
		name := r.peers().Self
		files, goroutines := r.descriptors(), r.counted("go_goroutines")
		for i := range 50 {
			switch i % 5 {
			case 3:
				reload(strings.Replace(good, "interval", "intervall", 1))
			case 4:
				reload(strings.Replace(good, "peers key", "peers kee", 1))
			default:
				reload(good)
			}
		}
		lab.UntilNil(t, func() error {
			nowFiles, nowGoroutines := r.descriptors(), r.counted("go_goroutines")
			if nowFiles > files+2 || nowGoroutines > goroutines+5 {
				return fmt.Errorf("%d descriptors and %v goroutines, before the reloads %d and %v", nowFiles, nowGoroutines, files, goroutines)
			}
			t.Logf("%d descriptors and %v goroutines, before the reloads %d and %v", nowFiles, nowGoroutines, files, goroutines)
			return nil
		})
		if now := r.peers().Self; now != name {
			t.Errorf("its name was %s and is %s: it has left and come again", name, now)
		}
		for _, other := range g.replicas[1:] {
			for _, e := range other.follow.since(began, "peer") {
				t.Errorf("%s: %s", other.name, e.Text)
			}
		}
		g.verdictsHold(t, began)
	})
}
