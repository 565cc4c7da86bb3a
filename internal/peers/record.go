package peers

import (
	"slices"

	"github.com/coredns-shaker/shaker/health"
)

// record is what is known of a subject.
type record struct {
	key    key
	hash   uint64
	topic  *topic // nil where the target is not in the table here
	voices []voice
	room   [defaultObservers]voice // for the first of them, so that most records take no more memory
	// place is where it is among all records, and dispute where it is among those that members disagree about, plus 1, 0 where
	// it is not.
	place, dispute int32
}

// voice is what a member says of a subject.
type voice struct {
	member *member
	number uint64 // of the entry
	said   int64  // when the word was said first
	opinion
}

// records are those of all subjects that this replica has in its table, or that others speak of.
type records struct {
	of       map[key]*record
	all      []*record
	disputed []*record // somebody says down and somebody says up
}

// get returns the record of a subject, and makes one if there is none. It is nil where there is no room.
func (rs *records) get(k key, add bool) *record {
	r := rs.of[k]
	if r == nil && add && len(rs.all) < maxSubjects {
		r = &record{key: k, hash: k.subject().Hash(), place: int32(len(rs.all))}
		r.voices = r.room[:0]
		rs.of[k] = r
		rs.all = append(rs.all, r)
	}
	return r
}

// drop forgets a record that says nothing any more.
func (rs *records) drop(r *record) {
	if r.topic != nil || len(r.voices) > 0 || rs.of[r.key] != r {
		return
	}
	rs.settle(r, false)
	delete(rs.of, r.key)
	last := rs.all[len(rs.all)-1]
	rs.all[r.place], last.place = last, r.place
	rs.all[len(rs.all)-1] = nil
	rs.all = rs.all[:len(rs.all)-1]
}

// voice returns what a member says, nil where that is nothing.
func (r *record) voice(m *member) *voice {
	for i := range r.voices {
		if r.voices[i].member == m {
			return &r.voices[i]
		}
	}
	return nil
}

// opinionOf returns what a member says.
func (r *record) opinionOf(m *member) opinion {
	if v := r.voice(m); v != nil {
		return v.opinion
	}
	return opinion{}
}

// hear notes what a member says. It reports whether that is another word or verdict than before.
func (rs *records) hear(r *record, x voice) bool {
	v := r.voice(x.member)
	var before opinion
	switch {
	case v == nil:
		r.voices = append(r.voices, x)
	default:
		before = v.opinion
		*v = x
	}
	x.member.count(r, before, x.opinion)
	if before.word != x.word {
		rs.settle(r, r.isDisputed())
	}
	return before != x.opinion
}

// silence forgets what a member says.
func (rs *records) silence(r *record, m *member) bool {
	i := slices.IndexFunc(r.voices, func(v voice) bool { return v.member == m })
	if i < 0 {
		return false
	}
	before := r.voices[i].opinion
	m.count(r, before, opinion{})
	last := len(r.voices) - 1
	r.voices[i], r.voices[last] = r.voices[last], voice{}
	r.voices = r.voices[:last]
	rs.settle(r, r.isDisputed())
	rs.drop(r)
	return !before.isNothing()
}

func (r *record) isDisputed() bool {
	up, down := false, false
	for i := range r.voices {
		switch r.voices[i].word {
		case health.SaysUp:
			up = true
		case health.SaysDown:
			down = true
		}
	}
	return up && down
}

// settle puts a record among the disputed ones, or takes it out.
func (rs *records) settle(r *record, disputed bool) {
	if disputed {
		enlist(&rs.disputed, r, &r.dispute)
	} else {
		delist(&rs.disputed, r, func(r *record) *int32 { return &r.dispute })
	}
}
