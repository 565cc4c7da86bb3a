package answer

import (
	"cmp"
	"slices"

	"github.com/miekg/dns"
)

// seals are the signatures of the RRsets that change in one section of a message. Those of others stay: the order of
// records is not part of what is signed, and neither are TTLs, but for the original one (RFC 4034, section 3.1.8.1).
type seals struct {
	*edit
	extra  bool // the section is the additional one
	broken map[int]*seal
}

// seal is the signatures of an RRset.
type seal struct {
	old []dns.RR
	rrs []dns.RR // what is signed anew
	end int      // of these in the new section
}

// breaks returns the seal of an RRset that changes, nil where it does not.
func (s *seals) breaks(n int) *seal {
	if !s.signed || !s.isAltered(n) {
		return nil
	}
	if s.broken == nil {
		s.broken = make(map[int]*seal)
	}
	if s.broken[n] == nil {
		s.broken[n] = new(seal)
	}
	return s.broken[n]
}

// isAltered tells whether an RRset gains or loses something in the section. Those of glue are numbered behind the others.
func (s *seals) isAltered(n int) bool {
	if n >= len(s.sets) {
		return s.glue.sets[n-len(s.sets)].altered
	}
	set := &s.sets[n]
	if !isService(set.rrtype) {
		return !set.fixed && (set.fate == thinned || set.fate == replaced || set.fate == failed || set.picks)
	}
	if s.extra {
		return set.alteredExtra
	}
	return set.alteredAnswer
}

// findAltered finds the RRsets that lose hints.
func (a *anatomy) findAltered() {
	for i := range a.members {
		m := &a.members[i]
		s := &a.sets[m.set]
		if isService(s.rrtype) && slices.ContainsFunc(a.pairsOf(m.own), hasLeft) {
			s.alteredAnswer, s.alteredExtra = s.alteredAnswer || !m.extra, s.alteredExtra || m.extra
		}
	}
}

// note tells of records of an RRset in the new section, which they are at the end of.
func (s *seals) note(n int, rrs []dns.RR, end int) {
	if seal := s.breaks(n); seal != nil && len(rrs) > 0 {
		seal.rrs = append(seal.rrs, rrs...)
		seal.end = end
	}
}

// noteOther tells of a record in the new section that leads nowhere, but may be of such an RRset. It is at the end.
func (s *seals) noteOther(section []dns.RR) {
	h := section[len(section)-1].Header()
	if !s.signed || h.Class != dns.ClassINET {
		return
	}
	if n, found := s.find(h.Name, h.Rrtype); found {
		s.note(n, section[len(section)-1:], len(section))
	}
}

// find returns the number of an RRset that stands in the section.
func (s *seals) find(owner string, rrtype uint16) (n int, found bool) {
	if s.extra {
		if n, found := s.glue.index.find(owner, rrtype); found {
			return len(s.sets) + n, true
		}
	}
	n, found = s.index.find(owner, rrtype)
	if s.extra {
		return n, found && s.sets[n].extra
	}
	return n, found && n < s.answered
}

// limitOf returns the longest TTL of an RRset.
func (s *seals) limitOf(n int) uint32 {
	if n >= len(s.sets) {
		return s.glue.sets[n-len(s.sets)].limit
	}
	return s.sets[n].limit
}

// other returns a record that no verdict is about, and whether it goes. The TTL of a signature follows that of the RRset
// it covers (RFC 4034, section 3); validation goes by the original TTL inside it. Without its RRset, or where that
// changes, it goes.
func (s *seals) other(rr dns.RR) (_ dns.RR, goes bool) {
	sig, ok := rr.(*dns.RRSIG)
	if !ok {
		return rr, false
	}
	n, found := s.find(sig.Hdr.Name, sig.TypeCovered)
	switch {
	case !found:
		return rr, false
	case n < len(s.sets) && s.sets[n].fate == failed && s.sets[n].fixed:
		return rr, true
	}
	if seal := s.breaks(n); seal != nil {
		seal.old = append(seal.old, sig)
		return rr, true
	}
	return s.capped(rr, s.limitOf(n)), false
}

// sealed returns the section with new signatures behind the RRsets that have lost theirs.
func (s *seals) sealed(section []dns.RR) []dns.RR {
	var all []*seal
	for _, seal := range s.broken {
		if len(seal.old) > 0 && len(seal.rrs) > 0 {
			all = append(all, seal)
		}
	}
	if len(all) == 0 {
		return section
	}
	slices.SortFunc(all, func(x, y *seal) int { return cmp.Compare(x.end, y.end) })
	sealed := make([]dns.RR, 0, len(section)+len(all))
	from := 0
	for _, seal := range all {
		sealed = append(sealed, section[from:seal.end]...)
		from = seal.end
		signatures := s.query.Signer.Sign(seal.rrs)
		s.invalid = s.invalid || !haveSameKeys(seal.old, signatures)
		sealed = append(sealed, signatures...)
	}
	return append(sealed, section[from:]...)
}

// denial returns the authority section of an answer that has been emptied.
func (s *seals) denial() []dns.RR {
	end := s.answered - 1 // of a CNAME chain
	seal := s.broken[end]
	if seal == nil || len(seal.old) == 0 {
		return []dns.RR{s.soa("")}
	}
	key := s.index.keys[end]
	proof := s.query.Signer.Deny(s.soa(seal.old[0].(*dns.RRSIG).SignerName), key.owner, key.rrtype)
	s.invalid = s.invalid || !haveSameKeys(seal.old, proof)
	return proof
}

// haveSameKeys tells whether for each signature there is a new one by the same key: only then those who validate have a
// reason to believe it.
func haveSameKeys(old, signatures []dns.RR) bool {
	return !slices.ContainsFunc(old, func(rr dns.RR) bool {
		before := rr.(*dns.RRSIG)
		return !slices.ContainsFunc(signatures, func(rr dns.RR) bool {
			sig, ok := rr.(*dns.RRSIG)
			return ok && sig.KeyTag == before.KeyTag && sig.Algorithm == before.Algorithm && sameName(sig.SignerName, before.SignerName)
		})
	})
}
