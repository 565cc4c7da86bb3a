package answer

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/coredns-shaker/shaker/internal/lab"
)

// editRun filters the answer a.example.org A 10.0.0.1, 10.0.0.2, which prepare may change before.
func editRun(t *testing.T, zone Zone, verdicts string, prepare func(request, m *dns.Msg)) *dns.Msg {
	t.Helper()
	request, m := filterMessages(t, "a.example.org. 10 IN A 10.0.0.1\na.example.org. 10 IN A 10.0.0.2")
	m.Ns = lab.Records(t, "example.org. 300 IN NS ns.example.org.")
	m.Extra = lab.Records(t, "ns.example.org. 300 IN A 10.0.0.53")
	m.Authoritative = true
	if prepare != nil {
		prepare(request, m)
	}
	before := filterTake(m)
	got, _ := filter(m, request, zone, filterVerdicts(t, verdicts))
	before.expectUnchanged(t)
	if _, err := got.Pack(); err != nil {
		t.Error(err)
	}
	if got != m && got.Id != m.Id {
		t.Errorf("id %d, want %d", got.Id, m.Id)
	}
	if !slices.Equal(got.Question, m.Question) {
		t.Errorf("question %v, want %v", got.Question, m.Question)
	}
	return got
}

const (
	editDown = "10.0.0.1=down 10.0.0.2=down"
	editPart = "10.0.0.1=down 10.0.0.2=up"
)

// AD says that all of the answer was validated. Order is not signed, so it survives that, and TTLs.
func TestEditClearsAD(t *testing.T) {
	const sig = "a.example.org. 10" + filterSig
	tests := []struct {
		name, fallback, verdicts, more string
		want                           bool
	}{
		{"all up", "all", "10.0.0.1=up 10.0.0.2=up", "", true},
		{"TTL", "all", "10.0.0.1=up 10.0.0.2=up", "ttl", true},
		{"thinned", "all", editPart, "", false},
		{"sorted", "all", editPart, sig, true},
		{"spared", "all", editDown, "", true},
		{"spared, signed", "nodata", editDown, sig, true},
		{"NODATA", "nodata", editDown, "", false},
		{"SERVFAIL", "servfail", editDown, "", false},
		{"SERVFAIL, signed", "servfail", editDown, sig, false},
		{"other addresses", "192.0.2.1", editDown, "", false},
	}
	for _, tt := range tests {
		got := editRun(t, filterPolicy(t, tt.fallback, 0), tt.verdicts, func(_, m *dns.Msg) {
			m.AuthenticatedData = true
			switch tt.more {
			case "":
			case "ttl":
				m.Answer[0].Header().Ttl = 300
			default:
				m.Answer = append(m.Answer, lab.Records(t, tt.more)...)
			}
		})
		if got.AuthenticatedData != tt.want {
			t.Errorf("%s: AD %v, want %v", tt.name, got.AuthenticatedData, tt.want)
		}
	}
}

// Where addresses are left, nothing but the answer section changes.
func TestEditKeepsTheRest(t *testing.T) {
	for _, fallbackIs := range []string{"all", "nodata", "servfail", "192.0.2.1"} {
		got := editRun(t, filterPolicy(t, fallbackIs, 0), editPart, func(_, m *dns.Msg) {
			m.RecursionAvailable, m.CheckingDisabled, m.Compress, m.Zero = true, true, true, true
		})
		header := dns.MsgHdr{Id: got.Id, Response: true, Authoritative: true, RecursionDesired: true,
			RecursionAvailable: true, CheckingDisabled: true, Zero: true}
		if got.MsgHdr != header || !got.Compress {
			t.Errorf("%s: header %+v", fallbackIs, got.MsgHdr)
		}
		if lab.RecordText(got.Ns) != "example.org. 300 IN NS ns.example.org.\n" || lab.RecordText(got.Extra) != "ns.example.org. 300 IN A 10.0.0.53\n" {
			t.Errorf("%s: authority and additional section\n%s%s", fallbackIs, lab.RecordText(got.Ns), lab.RecordText(got.Extra))
		}
	}
}

// A NODATA answer has a SOA in its authority section and nothing else, or it would read as a referral.
func TestEditNoData(t *testing.T) {
	longLabel := strings.Repeat("x", 63)
	// The longest names for which ns and hostmaster still fit before them, and one octet more: 255 less the
	// label with its length.
	name244 := strings.Join([]string{longLabel, longLabel, longLabel, strings.Repeat("y", 50)}, ".") + "."
	name245 := strings.Join([]string{longLabel, longLabel, longLabel, strings.Repeat("y", 51)}, ".") + "."
	tests := []struct {
		name  string
		zone  string
		owner string // of the addresses
		ns    string // authority section
		want  string // SOA
	}{
		{"SOA of the answer, TTLs capped", "example.org.", "a.example.org.",
			"example.org. 300 IN NS ns.example.org.\nexample.org. 300 IN SOA ns1.example.org. admin.example.org. 7 6 5 4 300",
			"example.org. 30 IN SOA ns1.example.org. admin.example.org. 7 6 5 4 30"},
		{"SOA of the answer, TTLs never raised", "example.org.", "a.example.org.",
			"example.org. 3 IN SOA ns1.example.org. admin.example.org. 7 6 5 4 2",
			"example.org. 3 IN SOA ns1.example.org. admin.example.org. 7 6 5 4 2"},
		{"zone of the stanza", "example.org.", "a.b.example.org.", "",
			"example.org. 30 IN SOA ns.example.org. hostmaster.example.org. 1 7200 1800 86400 30"},
		{"zone of the NS records", "org.", "a.b.example.org.", "example.org. 300 IN NS ns.example.net.",
			"example.org. 30 IN SOA ns.example.org. hostmaster.example.org. 1 7200 1800 86400 30"},
		{"NS records of elsewhere", "example.org.", "a.example.org.", "example.net. 300 IN NS ns.example.net.",
			"example.org. 30 IN SOA ns.example.org. hostmaster.example.org. 1 7200 1800 86400 30"},
		{"NS records of the root", "example.org.", "a.example.org.", ". 300 IN NS a.root-servers.net.",
			". 30 IN SOA ns. hostmaster. 1 7200 1800 86400 30"},
		{"stanza for the root", ".", "a.example.org.", "",
			"a.example.org. 30 IN SOA ns.a.example.org. hostmaster.a.example.org. 1 7200 1800 86400 30"},
		{"alias that leaves the stanza's zone", "example.net.", "A.Example.org.", "",
			"A.Example.org. 30 IN SOA ns.A.Example.org. hostmaster.A.Example.org. 1 7200 1800 86400 30"},
		{"addresses of the root", ".", ".", "", ". 30 IN SOA ns. hostmaster. 1 7200 1800 86400 30"},
		{"name as long as it may be for its hostmaster", ".", name244, "",
			name244 + " 30 IN SOA ns." + name244 + " hostmaster." + name244 + " 1 7200 1800 86400 30"},
		{"name that is too long for it", ".", name245, "", name245 + " 30 IN SOA ns." + name245 + " . 1 7200 1800 86400 30"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			zone := filterPolicy(t, "nodata", 0)
			zone.Name = tt.zone
			got := editRun(t, zone, editDown, func(request, m *dns.Msg) {
				m.Answer = lab.Records(t, "w.example.net. 300 IN CNAME "+tt.owner+"\n"+tt.owner+" 300 IN A 10.0.0.1\n")
				m.Ns = lab.Records(t, tt.ns)
			})
			if got.Rcode != dns.RcodeSuccess || !got.Authoritative {
				t.Errorf("rcode %s, AA %v", dns.RcodeToString[got.Rcode], got.Authoritative)
			}
			if answer := lab.RecordText(got.Answer); answer != "w.example.net. 300 IN CNAME "+tt.owner+"\n" {
				t.Errorf("answer\n%s", answer)
			}
			if got, want := lab.RecordText(got.Ns), lab.RecordText(lab.Records(t, tt.want)); got != want {
				t.Errorf("authority section\n%swant\n%s", got, want)
			}
			if len(got.Extra) > 0 {
				t.Errorf("additional section\n%s", lab.RecordText(got.Extra))
			}
		})
	}
}

func TestEditServFail(t *testing.T) {
	got := editRun(t, filterPolicy(t, "servfail", 0), editDown, func(_, m *dns.Msg) { m.RecursionAvailable = true })
	if got.Rcode != dns.RcodeServerFailure || got.Authoritative || !got.RecursionAvailable || !got.Response {
		t.Errorf("%+v", got.MsgHdr)
	}
	if len(got.Answer)+len(got.Ns)+len(got.Extra) > 0 {
		t.Errorf("not empty:\n%v", got)
	}
}

// editEDE returns the Extended DNS Errors in m, and its other EDNS options.
func editEDE(m *dns.Msg) (errors []string, others int) {
	for _, rr := range m.Extra {
		opt, ok := rr.(*dns.OPT)
		if !ok {
			continue
		}
		for _, o := range opt.Option {
			if ede, ok := o.(*dns.EDNS0_EDE); ok {
				errors = append(errors, fmt.Sprint(ede.InfoCode, " ", ede.ExtraText))
			} else {
				others++
			}
		}
	}
	return errors, others
}

// The client learns why, if it speaks EDNS, and nobody else does.
func TestEditExplains(t *testing.T) {
	all := "0 shaker: 2 of 2 addresses of a.example.org. are down"
	tests := []struct {
		fallback, verdicts string
		panics             int
		want               string
	}{
		{"all", editDown, 0, all},
		{"nodata", editDown, 0, all},
		{"servfail", editDown, 0, all},
		{"192.0.2.1", editDown, 0, all},
		{"192.0.2.1", editPart, 60, "0 shaker: 1 of 2 addresses of a.example.org. are down"},
		{"nodata", editPart, 0, ""}, // an address is left: nothing to explain
		{"nodata", "", 0, ""},
	}
	for _, tt := range tests {
		for _, edns := range []bool{false, true} {
			for _, opt := range []bool{false, true} {
				t.Run(fmt.Sprint(tt.fallback, " ", tt.verdicts, " EDNS ", edns, " OPT ", opt), func(t *testing.T) {
					got := editRun(t, filterPolicy(t, tt.fallback, tt.panics), tt.verdicts, func(request, m *dns.Msg) {
						if edns {
							request.SetEdns0(1232, true)
						}
						if opt {
							m.SetEdns0(4096, true)
							o := m.IsEdns0()
							o.Option = make([]dns.EDNS0, 1, 4)
							o.Option[0] = &dns.EDNS0_NSID{Code: dns.EDNS0NSID, Nsid: "6e73"}
							// The OPT record need not be last.
							slices.Reverse(m.Extra)
						}
					})
					errors, others := editEDE(got)
					want := []string{tt.want}
					if !edns || tt.want == "" {
						want = nil
					}
					if !slices.Equal(errors, want) {
						t.Errorf("%q, want %q", errors, want)
					}
					opts := 0
					for _, rr := range got.Extra {
						if o, ok := rr.(*dns.OPT); ok {
							opts++
							if opt && (o.UDPSize() != 4096 || !o.Do()) {
								t.Errorf("OPT became %v", o)
							}
						}
					}
					wantOpts := 0
					if opt || len(want) > 0 {
						wantOpts = 1
					}
					if opts != wantOpts || opt != (others == 1) {
						t.Errorf("%d OPT, %d other options", opts, others)
					}
				})
			}
		}
	}
}

// An OPT record with options in spare capacity: another answer may be using it.
func TestEditLeavesOptionsAlone(t *testing.T) {
	var opt *dns.OPT
	var options []dns.EDNS0
	editRun(t, filterPolicy(t, "all", 0), editDown, func(request, m *dns.Msg) {
		request.SetEdns0(1232, false)
		m.SetEdns0(4096, false)
		opt = m.IsEdns0()
		options = make([]dns.EDNS0, 3)
		opt.Option = options[:1]
		options[0] = &dns.EDNS0_NSID{Code: dns.EDNS0NSID, Nsid: "6e73"}
	})
	if len(opt.Option) != 1 || options[1] != nil || options[2] != nil {
		t.Errorf("options %v", options)
	}
}

// The last RRset that fell is the one that is explained: that is the end of an alias chain.
func TestEditExplainsTheEndOfTheChain(t *testing.T) {
	got := editRun(t, filterPolicy(t, "nodata", 0), editDown, func(request, m *dns.Msg) {
		request.SetEdns0(1232, false)
		m.Answer = lab.Records(t, `a.example.org. 10 IN A 10.0.0.1
			b.example.org. 10 IN A 10.0.0.1
			b.example.org. 10 IN A 10.0.0.2
			b.example.org. 10 IN A 10.0.0.2`)
	})
	errors, _ := editEDE(got)
	if want := "0 shaker: 3 of 3 addresses of b.example.org. are down"; len(errors) != 1 || errors[0] != want {
		t.Errorf("%q, want %q", errors, want)
	}
}

// Records that are handed out twice share nothing.
func TestEditFallbackRecordsAreNew(t *testing.T) {
	f := Fallback{Kind: FallbackAddresses, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}}
	to := copies{size: 2}
	appendRecords := func(h *dns.RR_Header) []dns.RR {
		s := &rrset{judgement: judgement{instead: f.addressesOf(h.Rrtype), ttl: 30}}
		return s.appendRecords(nil, h, &to)
	}
	for _, rrtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		h := &dns.RR_Header{Name: "A.example.org.", Rrtype: rrtype, Class: dns.ClassINET, Ttl: 300, Rdlength: 99}
		one, two := appendRecords(h), appendRecords(h)
		if len(one) != 1 || len(two) != 1 || one[0] == two[0] {
			t.Fatalf("%v, %v", one, two)
		}
		if got := *one[0].Header(); got.Name != h.Name || got.Ttl != 30 || got.Rrtype != rrtype || got.Rdlength != 0 {
			t.Errorf("%+v", got)
		}
		switch rr := one[0].(type) {
		case *dns.A:
			rr.A[0]++
		case *dns.AAAA:
			rr.AAAA[0]++
		}
		if appendRecords(h)[0].String() != two[0].String() {
			t.Error("a record changed with another")
		}
	}
}
