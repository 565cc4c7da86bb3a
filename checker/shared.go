package checker

import "sync"

// shared are the probers that Checkers have in common.
var shared = sharedProbers{probers: make(map[need]*sharedProber)}

// need is what a Checker wants of a prober. What else Config says is each Checker's own matter.
type need struct {
	method Method
	egress egress
	pool   int // 0 is the default
}

type sharedProbers struct {
	mu      sync.Mutex
	probers map[need]*sharedProber
}

// sharedProber lives for as long as somebody holds it.
type sharedProber struct {
	*Prober
	need    need
	holders int
}

// take returns a prober for config, and how to give it back.
func (p *sharedProbers) take(config *Config) (*Prober, func(), error) {
	n := need{method: config.Method.actual(), egress: config.egress()}
	if config.Pool > poolSize(n.method, 0) {
		n.pool = config.Pool
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.probers[n]
	if s == nil || s.hasEnded() {
		prober, err := NewProber(Config{Method: n.method, Pool: n.pool, Interface: config.Interface, Mark: config.Mark}, deliverToWaiters)
		if err != nil {
			return nil, nil, err
		}
		s = &sharedProber{Prober: prober, need: n}
		p.probers[n] = s
	}
	s.holders++
	return s.Prober, func() { p.release(s) }, nil
}

// release ends the prober if nobody else holds it.
func (p *sharedProbers) release(s *sharedProber) {
	p.mu.Lock()
	s.holders--
	last := s.holders == 0
	if last && p.probers[s.need] == s {
		delete(p.probers, s.need)
	}
	p.mu.Unlock()
	if last {
		s.Close()
	}
}

// hasEnded tells whether the prober has failed.
func (s *sharedProber) hasEnded() bool {
	select {
	case <-s.Done():
		return true
	default:
		return false
	}
}
