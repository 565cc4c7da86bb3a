package members

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

func TestOpenPacket(t *testing.T) {
	k, me := ring(t, keyA, keyB), receiverOf("me")
	largest := strings.Repeat(".", maxPacket-packetOverhead)
	for _, content := range []string{"", "hello", largest} {
		for _, sealing := range []*keyring{ring(t, keyA), ring(t, keyB)} {
			packet := sealPacket(nil, sealing, me, newNumbering(), forUser, []byte(content))
			if len(packet) != packetOverhead+len(content) {
				t.Errorf("a packet with %d octets has %d", len(content), len(packet))
			}
			what, got, why := openPacket(make([]byte, 0, maxPacket), k, me, new(copies), packet)
			if what != forUser || string(got) != content || why != taken {
				t.Errorf("%.10q: %v, %.10q, %v", content, what, got, why)
			}
		}
	}
}

// What was sealed by the first version with peers is understood for ever, or is of another version by its mark.
func TestSealedAsEver(t *testing.T) {
	packet, err := hex.DecodeString("f57368012744ccd15f98dea66e3acb61d505e833978361cebbb4c274f2a72b74918336a8e84198c4a99294e1ae8ceb9d4095c6b2469f4649d2a6")
	if err != nil {
		t.Fatal(err)
	}
	if what, got, why := openPacket(nil, ring(t, keyA), receiverOf("me"), new(copies), packet); what != forUser || string(got) != "hello" || why != taken {
		t.Errorf("%v, %q, %v", what, got, why)
	}
	c := forConnection(ring(t, keyA).secrets[0], bytes.Repeat([]byte{7}, 2*challengeSize), toDials)
	for _, want := range []string{"654c9a55c0fc4c6a2313f1b4ecf235614b875e65a6", "ecd2b97dd54a924cc1672e81545dc3746d0531e03c"} {
		if got := hex.EncodeToString(c.seal(nil, []byte("hello"))); got != want {
			t.Errorf("a frame is %s, want %s", got, want)
		}
	}
}

func TestPacketsTakeNoMemory(t *testing.T) {
	k, me, c, known := ring(t, keyA), receiverOf("me"), newNumbering(), new(copies)
	content, packet, opened := make([]byte, 1200), make([]byte, 0, maxPacket), make([]byte, 0, maxPacket)
	n := testing.AllocsPerRun(100, func() {
		packet = sealPacket(packet[:0], k, me, c, forUser, content)
		if _, _, why := openPacket(opened, k, me, known, packet); why != taken {
			t.Fatal(why)
		}
	})
	if n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// meet connects two ends.
func meet(t *testing.T, dials, accepts *keyring, what kind, to string) (d, a *sealedConn, got kind, why refusal, err error) {
	ours, theirs := net.Pipe()
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	done := make(chan struct{})
	go func() {
		defer close(done)
		a, got, why = accepted(theirs, accepts, "me")
		if why != taken {
			theirs.Close()
		}
	}()
	d, err = dialed(ours, dials, what, to, time.Second)
	<-done
	return d, a, got, why, err
}

func TestConnections(t *testing.T) {
	for _, tt := range []struct {
		name           string
		dials, accepts []string
		to             string
		why            refusal
		err            string
	}{
		{"same key", []string{keyA}, []string{keyA}, "me", taken, ""},
		{"nobody in particular", []string{keyA}, []string{keyA}, "", taken, ""},
		{"rotation, the new key is known", []string{keyA}, []string{keyA, keyB}, "me", taken, ""},
		{"rotation, one uses the new key", []string{keyB, keyA}, []string{keyA, keyB}, "me", taken, ""},
		{"rotation, the old key is gone here", []string{keyB, keyA}, []string{keyB}, "me", taken, ""},
		{"another key", []string{keyA}, []string{keyB}, "me", key, "has other keys"},
		{"another name", []string{keyA}, []string{keyA}, "you", misled, "is another replica by now"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, a, what, why, err := meet(t, ring(t, tt.dials...), ring(t, tt.accepts...), forUser, tt.to)
			if why != tt.why || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Fatalf("%v, %v, want %v, %q", why, err, tt.why, tt.err)
			}
			if why != taken {
				return
			}
			if what != forUser {
				t.Errorf("it is for %v", what)
			}
			long := bytes.Repeat([]byte("0123456789"), maxFrame/4)
			for _, way := range [][2]*sealedConn{{d, a}, {a, d}, {d, a}} {
				go way[0].Write(long)
				got := make([]byte, len(long))
				if _, err := io.ReadFull(way[1], got); err != nil || !bytes.Equal(got, long) {
					t.Errorf("%v, or something else than was sent", err)
				}
			}
		})
	}
}

// Who listens where no replica does gets an error that tells so.
func TestDialedToOthers(t *testing.T) {
	for said, want := range map[string]string{
		"":                             "closes connections from here, want this replica among those that it allows",
		"SSH-2.0-OpenSSH_9.2p1 Debian": "is no replica that speaks this version of the protocol",
		string(beginning()):            "read what :0 answers: EOF",
		string(beginning()) + "w":      "",
		string(beginning()) + "k":      "has other keys, want the first line of the key file here in its key file, too",
		string(beginning()) + "n":      "is another replica by now",
		string(beginning()) + "?":      "is no replica that speaks this version of the protocol",
		string(append(mark[:3:3], make([]byte, challengeSize+1)...)): "is no replica that speaks this version of the protocol",
	} {
		_, err := dialed(reading{discard{}, strings.NewReader(said)}, ring(t, keyA), forUser, "me", time.Second)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", said, err, want)
		}
	}
}

// Frames cannot be changed, left out, swapped, sent back, or taken for those of another connection.
func TestFramesKeepTheirPlace(t *testing.T) {
	frames := func(t *testing.T, c *sealedConn, n int) (all [][]byte) {
		for range n {
			var b bytes.Buffer
			sent := *c
			sent.Conn = recording{discard{}, &b}
			sent.Write([]byte{byte(len(all))})
			*c = sent
			all = append(all, b.Bytes())
		}
		return all
	}
	for _, tt := range []struct {
		name string
		send func(mine, theirs, other [][]byte) []byte
		read int // how many frames are right
	}{
		{"in order", func(m, _, _ [][]byte) []byte { return bytes.Join(m, nil) }, 3},
		{"swapped", func(m, _, _ [][]byte) []byte { return bytes.Join([][]byte{m[1], m[0]}, nil) }, 0},
		{"one left out", func(m, _, _ [][]byte) []byte { return bytes.Join([][]byte{m[0], m[2]}, nil) }, 1},
		{"twice", func(m, _, _ [][]byte) []byte { return bytes.Join([][]byte{m[0], m[0]}, nil) }, 1},
		{"sent back", func(_, th, _ [][]byte) []byte { return th[0] }, 0},
		{"of another connection", func(_, _, o [][]byte) []byte { return o[0] }, 0},
		{"changed", func(m, _, _ [][]byte) []byte { m[0][20] ^= 1; return m[0] }, 0},
		{"cut off", func(m, _, _ [][]byte) []byte { return m[0][:len(m[0])-1] }, 0},
		{"too long", func(m, _, _ [][]byte) []byte { m[0][0] = 1; return m[0] }, 0},
		{"too short", func(m, _, _ [][]byte) []byte { m[0][3] = tagSize - 1; return m[0] }, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, a, _, _, err := meet(t, ring(t, keyA), ring(t, keyA), forUser, "me")
			o, _, _, _, err2 := meet(t, ring(t, keyA), ring(t, keyA), forUser, "me")
			if err = errors.Join(err, err2); err != nil {
				t.Fatal(err)
			}
			theirs := *a
			octets := tt.send(frames(t, d, 3), frames(t, &theirs, 1), frames(t, o, 1))
			a.Conn = reading{discard{}, bytes.NewReader(octets)}
			got, err := io.ReadAll(a)
			if len(got) != tt.read || (err == nil) != (tt.read == 3) {
				t.Errorf("%d frames, %v, want %d", len(got), err, tt.read)
			}
		})
	}
}

// discard is a connection that goes nowhere.
type discard struct{ net.Conn }

func (discard) Write(b []byte) (int, error) { return len(b), nil }
func (discard) RemoteAddr() net.Addr        { return &net.TCPAddr{} }
func (discard) SetDeadline(time.Time) error { return nil }

type reading struct {
	net.Conn
	from io.Reader
}

func (r reading) Read(b []byte) (int, error) { return r.from.Read(b) }

type recording struct {
	net.Conn
	to *bytes.Buffer
}

func (r recording) Write(b []byte) (int, error) {
	r.to.Write(b)
	return r.Conn.Write(b)
}

func FuzzOpenPacket(f *testing.F) {
	k, me := ring(f, keyA), receiverOf("me")
	f.Add(sealPacket(nil, k, me, newNumbering(), forUser, []byte("hello")))
	f.Add(append(mark[:], me.tag[:]...))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, packet []byte) {
		opened := make([]byte, 0, maxPacket)
		if _, content, why := openPacket(opened, k, me, new(copies), packet); why == taken && string(content) != "hello" {
			t.Errorf("%x is taken", packet)
		}
	})
}

// Whatever is said to who accepts, it does not wait for more than it needs, and only who has the key is let in.
func FuzzAccepted(f *testing.F) {
	k := ring(f, keyA)
	f.Add(mark[:])
	f.Add(append(beginning(), make([]byte, helloSize)...))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, said []byte) {
		if _, _, why := accepted(reading{discard{}, bytes.NewReader(said)}, k, "me"); why == taken {
			t.Errorf("%x is let in", said)
		}
	})
}

// The same for who dials.
func FuzzDialed(f *testing.F) {
	k := ring(f, keyA)
	f.Add(append(beginning(), welcome))
	f.Add(append(beginning(), strangeKey))
	f.Add([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
	f.Fuzz(func(t *testing.T, said []byte) {
		c, err := dialed(reading{discard{}, bytes.NewReader(said)}, k, forUser, "me", time.Second)
		if err != nil {
			return
		}
		if got, err := io.ReadAll(c); len(got) > 0 || err == nil && len(said) > len(mark)+challengeSize+1 {
			t.Errorf("%x: read %q, %v", said, got, err)
		}
	})
}
