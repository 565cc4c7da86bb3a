package members

import (
	"bytes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"
)

// What goes over the network is sealed as a whole: packets one by one, and connections in frames. Nobody without a key can
// read it, make it, or change it. It is bound to whom it is for by its key: that of a packet is made with the name of the
// receiver, which is another one after each start, and those of a connection with random octets of both ends. Packets are
// numbered. So what was recorded is of no use: not with another receiver, not with the same one after a restart, and not
// with the same one before that.

// label keeps apart what else may have the same secret, and goes into all keys.
const label = "shaker peers 1"

// mark begins each packet and each connection, so that nearly all else is told from them at a glance: the version of this
// format is its last octet. memberlist and its other users begin with octets below 16, or 244.
var mark = [4]byte{0xf5, 's', 'h', 1}

const (
	// maxPacket bounds a packet, in octets. It fits into what nearly every link carries in one piece, also in a tunnel.
	maxPacket = 1400
	// packetOverhead is what a packet has around what is in it: the mark, for whom it is, a stamp, what kind it is, and the
	// seal.
	packetOverhead = len(mark) + 4 + stampSize + 1 + nonceSize + tagSize
	nonceSize      = 12
	tagSize        = 16
	// maxFrame bounds what is in a frame of a connection, in octets.
	maxFrame = 64 << 10
	// patience is how long the beginning of a connection may take on either side.
	patience = 3 * time.Second
)

// kind is who gets what comes in a packet, or over a connection.
type kind byte

const (
	forMemberlist kind = iota
	forUser
)

// receiver is for whom packets are: who has the name.
type receiver struct {
	tag  [4]byte // begins the hash of the name
	name string
}

func receiverOf(name string) receiver {
	sum := sha256.Sum256([]byte(name))
	r := receiver{name: name}
	copy(r.tag[:], sum[:])
	return r
}

// sealPacket appends a packet to dst.
func sealPacket(dst []byte, k *keyring, to receiver, c *numbering, what kind, content []byte) []byte {
	dst = append(dst, mark[:]...)
	dst = append(dst, to.tag[:]...)
	plain := scratch.Get().(*[]byte)
	defer scratch.Put(plain)
	*plain = append(append(c.append((*plain)[:0]), byte(what)), content...)
	return k.forPackets(to.name)[0].Seal(dst, nil, *plain, nil)
}

// scratch has slices with room for a packet.
var scratch = sync.Pool{New: func() any { b := make([]byte, 0, maxPacket); return &b }}

// refusal is why something is not taken.
type refusal uint8

const (
	taken    refusal = iota
	source           // from an address that may not speak to us
	key              // sealed with a key that we do not have, or not sealed at all
	format           // something else than a packet or a connection of ours
	flood            // too many at a time
	misled           // for another replica, mostly for the one that was here before a restart
	replay           // a copy of what has come before
	refusals         // how many there are
)

func (r refusal) String() string {
	return [...]string{"", "source", "key", "format", "flood", "misled", "replay"}[r]
}

// openPacket returns what is in a packet, in dst.
func openPacket(dst []byte, k *keyring, me receiver, known *copies, packet []byte) (what kind, content []byte, why refusal) {
	if len(packet) < packetOverhead || len(packet) > maxPacket || !bytes.HasPrefix(packet, mark[:]) {
		return 0, nil, format
	}
	if [4]byte(packet[4:8]) != me.tag {
		return 0, nil, misled
	}
	plain := openAny(dst, k.forPackets(me.name), packet[8:])
	switch {
	case plain == nil:
		return 0, nil, key
	case !known.isNew([stampSize]byte(plain)):
		return 0, nil, replay
	}
	if what = kind(plain[stampSize]); what > forUser {
		return 0, nil, format
	}
	return what, plain[stampSize+1:], taken
}

// openAny appends to dst what was sealed with one of several ciphers, or returns nil if it was not.
func openAny(dst []byte, with []cipher.AEAD, sealed []byte) []byte {
	for _, c := range with {
		if plain, err := c.Open(dst, nil, sealed, nil); err == nil {
			return plain
		}
	}
	return nil
}

// Who accepts a connection sends the mark and random octets. Who has dialed sends the same, then what the connection is for,
// sealed. The answer is an octet. Then both send frames: their length in 4 octets, and what is in them, sealed.

// The answers.
const (
	welcome    = 'w'
	strangeKey = 'k'
	strangeWay = 'n' // the name is that of another replica
)

const (
	challengeSize = 16
	// helloSize is that of what a connection is for, and the hash of whom it is for, sealed.
	helloSize = 1 + sha256.Size + tagSize
)

// beginning returns the mark and random octets.
func beginning() []byte {
	b := append(make([]byte, 0, len(mark)+challengeSize), mark[:]...)
	b = b[:len(mark)+challengeSize]
	rand.Read(b[len(mark):]) // it never fails
	return b
}

// sealedConn is a connection whose content is sealed. Each direction has a key of its own.
type sealedConn struct {
	net.Conn
	in, out       direction
	rest          []byte // read, and not taken yet
	buffer, plain []byte
}

// The directions.
const (
	toAccepts = "to who accepts"
	toDials   = "to who dials"
)

// dialed begins a connection that this end has dialed. name is whom it is for, or "".
func dialed(conn net.Conn, k *keyring, what kind, name string, within time.Duration) (*sealedConn, error) {
	if err := conn.SetDeadline(time.Now().Add(within)); err != nil {
		return nil, err
	}
	var theirs [len(mark) + challengeSize]byte
	if _, err := io.ReadFull(conn, theirs[:]); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, fmt.Errorf("%v closes connections from here, want this replica among those that it allows", conn.RemoteAddr())
		}
		return nil, fmt.Errorf("read how %v begins: %w", conn.RemoteAddr(), err)
	}
	if !bytes.HasPrefix(theirs[:], mark[:]) {
		return nil, fmt.Errorf("%v is no replica that speaks this version of the protocol", conn.RemoteAddr())
	}
	ours := beginning()
	drawn := slices.Concat(theirs[len(mark):], ours[len(mark):])
	c := &sealedConn{Conn: conn, in: forConnection(k.secrets[0], drawn, toDials), out: forConnection(k.secrets[0], drawn, toAccepts)}
	hash := sha256.Sum256([]byte(name))
	ours = c.out.seal(ours, append([]byte{byte(what)}, hash[:]...))
	if _, err := conn.Write(ours); err != nil {
		return nil, err
	}
	return c, c.answer()
}

// answer reads what the other end says to the beginning.
func (c *sealedConn) answer() error {
	var answer [1]byte
	if _, err := io.ReadFull(c.Conn, answer[:]); err != nil {
		return fmt.Errorf("read what %v answers: %w", c.RemoteAddr(), err)
	}
	switch answer[0] {
	case welcome:
		return c.SetDeadline(time.Time{})
	case strangeKey:
		return fmt.Errorf("%v has other keys, want the first line of the key file here in its key file, too", c.RemoteAddr())
	case strangeWay:
		return fmt.Errorf("%v is another replica by now", c.RemoteAddr())
	}
	return fmt.Errorf("%v is no replica that speaks this version of the protocol", c.RemoteAddr())
}

// accepted begins a connection that was dialed by the other end. What is not taken is to be closed.
func accepted(conn net.Conn, k *keyring, me string) (c *sealedConn, what kind, why refusal) {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, 0, format
	}
	ours := beginning()
	if _, err := conn.Write(ours); err != nil {
		return nil, 0, format
	}
	var theirs [len(mark) + challengeSize + helloSize]byte
	if _, err := io.ReadFull(conn, theirs[:len(mark)]); err != nil || !bytes.HasPrefix(theirs[:], mark[:]) {
		return nil, 0, format
	}
	if _, err := io.ReadFull(conn, theirs[len(mark):]); err != nil {
		return nil, 0, format
	}
	hello := theirs[len(mark)+challengeSize:]
	drawn := slices.Concat(ours[len(mark):], theirs[len(mark):len(mark)+challengeSize])
	var plain []byte
	for _, secret := range k.secrets { // who dials uses its first, whichever that is here
		in := forConnection(secret, drawn, toAccepts)
		if opened, err := in.open(nil, hello); err == nil {
			plain, c = opened, &sealedConn{Conn: conn, in: in, out: forConnection(secret, drawn, toDials)}
			break
		}
	}
	answer := byte(welcome)
	switch {
	case c == nil:
		answer, why = strangeKey, key
	case kind(plain[0]) > forUser:
		return nil, 0, format
	case [sha256.Size]byte(plain[1:]) != sha256.Sum256([]byte(me)) && [sha256.Size]byte(plain[1:]) != sha256.Sum256(nil):
		answer, why = strangeWay, misled
	}
	if _, err := conn.Write([]byte{answer}); err != nil && why == taken {
		why = format
	}
	if why != taken {
		return nil, 0, why
	}
	return c, kind(plain[0]), taken
}

// Read returns what was in frames.
func (c *sealedConn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	for len(c.rest) == 0 {
		if err := c.readFrame(); err != nil {
			return 0, err
		}
	}
	n := copy(b, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

func (c *sealedConn) readFrame() error {
	var head [4]byte
	if _, err := io.ReadFull(c.Conn, head[:]); err != nil {
		return err // io.EOF between two frames is the end
	}
	size := binary.BigEndian.Uint32(head[:])
	if size < tagSize || size > tagSize+maxFrame {
		return fmt.Errorf("a frame has %d octets, want %d to %d", size, tagSize, tagSize+maxFrame)
	}
	if cap(c.buffer) < int(size) {
		c.buffer = make([]byte, size)
	}
	frame := c.buffer[:size]
	if _, err := io.ReadFull(c.Conn, frame); err != nil {
		return noEOF(err)
	}
	plain, err := c.in.open(c.plain[:0], frame)
	if err != nil {
		return fmt.Errorf("a frame of %v is not what it has sent", c.RemoteAddr())
	}
	c.plain, c.rest = plain, plain
	return nil
}

// noEOF has an end in the middle be an error.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Write sends frames.
func (c *sealedConn) Write(b []byte) (int, error) {
	sent := 0
	for sent < len(b) {
		part := b[sent:min(len(b), sent+maxFrame)]
		frame := binary.BigEndian.AppendUint32(make([]byte, 0, 4+tagSize+len(part)), uint32(tagSize+len(part)))
		if _, err := c.Conn.Write(c.out.seal(frame, part)); err != nil {
			return sent, err
		}
		sent += len(part)
	}
	return sent, nil
}
