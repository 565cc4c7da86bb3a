package members

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/coredns-shaker/shaker/internal/reread"
)

const (
	// leastKey is how many characters a key has at least.
	leastKey = 16
	// maxKeys bounds how many keys a file has: each one is tried on a packet that somebody has made up.
	maxKeys = 8
	// maxKeyFile bounds a key file, in octets.
	maxKeyFile = 64 << 10
	// lookEvery is how often the file is read. What is new is in force once two readings in a row agree on it: after the
	// first, somebody may still be writing.
	lookEvery = time.Second
)

// makeKey tells people how to make a key.
const makeKey = `such as a line that "openssl rand -base64 32" writes`

// keyring has the secrets of a key file, one of each line. By HKDF (RFC 5869) each gives a key for the packets to each replica,
// and one for each direction of each connection, so that what is sealed for one purpose is of no use for another. They are keys
// of AES-256-GCM (NIST SP 800-38D). Frames are numbered, and nonces of packets are drawn at random, which may be done 2^32
// times with one key: 1000 packets a second to one replica take 50 days for that, and it has other keys after each start.
type keyring struct {
	lines   []string // that the secrets are from, to tell what has changed
	secrets [][]byte

	mu      sync.RWMutex
	packets map[string][]cipher.AEAD // by the name of the receiver, the first seals
}

// parseKeys reads a key file: a key on each line, without the blanks around it. Empty lines and those that begin with # are
// for people.
func parseKeys(path, content string) (*keyring, error) {
	if !utf8.ValidString(content) {
		return nil, fmt.Errorf("%s is not UTF-8, want lines of text", path)
	}
	k := new(keyring)
	number := 0
	for line := range strings.Lines(content) {
		number++
		line = strings.TrimSpace(line)
		switch {
		case line == "" || strings.HasPrefix(line, "#") || slices.Contains(k.lines, line):
			continue
		case strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) && r != '\t' }):
			return nil, fmt.Errorf("%s: line %d has characters that cannot be seen, want a key as plain text, %s", path, number, makeKey)
		case utf8.RuneCountInString(line) < leastKey:
			return nil, fmt.Errorf("%s: line %d is a key of %d characters, want %d or more, %s",
				path, number, utf8.RuneCountInString(line), leastKey, makeKey)
		case len(k.lines) == maxKeys:
			return nil, fmt.Errorf("%s has more than %d keys, want those removed that no replica needs any more", path, maxKeys)
		}
		if err := k.add(line); err != nil {
			return nil, fmt.Errorf("%s: line %d: %w", path, number, err)
		}
	}
	if len(k.lines) == 0 {
		return nil, fmt.Errorf("%s has no key, want one on the first line, %s", path, makeKey)
	}
	return k, nil
}

// add takes the secret out of all of a line. Two lines that have the same beginning are two secrets.
func (k *keyring) add(line string) error {
	secret, err := hkdf.Extract(sha256.New, []byte(line), nil)
	if err != nil {
		return err
	}
	k.lines, k.secrets = append(k.lines, line), append(k.secrets, secret)
	return nil
}

// block returns the cipher for a purpose that a secret has.
func block(secret []byte, purpose string) cipher.Block {
	key, err := hkdf.Expand(sha256.New, secret, label+" "+purpose, 32)
	if err != nil {
		panic(err) // only for keys that are longer
	}
	b, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // only for keys of other sizes
	}
	return b
}

// maxCiphers bounds how many receivers have ciphers that are kept.
const maxCiphers = 2 * maxMembers

// forPackets returns what packets to a replica are sealed with: the first of them seals, and all open. They draw nonces
// themselves.
func (k *keyring) forPackets(to string) []cipher.AEAD {
	k.mu.RLock()
	all := k.packets[to]
	k.mu.RUnlock()
	if all != nil {
		return all
	}
	for _, secret := range k.secrets {
		aead, err := cipher.NewGCMWithRandomNonce(block(secret, "packets to "+to))
		if err != nil {
			panic(err) // only for blocks of other sizes
		}
		all = append(all, aead)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.packets == nil || len(k.packets) >= maxCiphers {
		k.packets = make(map[string][]cipher.AEAD)
	}
	k.packets[to] = all
	return all
}

// forConnection returns what one direction of a connection is sealed with, for which both ends have drawn octets. The number of
// a frame is its nonce.
func forConnection(secret, drawn []byte, way string) direction {
	aead, err := cipher.NewGCM(block(secret, "connection, "+way+" "+string(drawn)))
	if err != nil {
		panic(err) // only for blocks of other sizes
	}
	return direction{aead: aead}
}

// direction seals or opens the frames that go one way, one after the other.
type direction struct {
	aead  cipher.AEAD
	count uint64
	nonce [12]byte
}

func (d *direction) next() []byte {
	binary.BigEndian.PutUint64(d.nonce[4:], d.count)
	d.count++
	return d.nonce[:]
}

// seal appends the next frame to dst.
func (d *direction) seal(dst, plain []byte) []byte { return d.aead.Seal(dst, d.next(), plain, nil) }

// open appends to dst what is in the next frame.
func (d *direction) open(dst, sealed []byte) ([]byte, error) {
	return d.aead.Open(dst, d.next(), sealed, nil)
}

// change tells what is different from the keys before, "" where nothing is.
func (k *keyring) change(before *keyring) string {
	switch {
	case slices.Equal(k.lines, before.lines):
		return ""
	case k.lines[0] != before.lines[0]:
		return "another one encrypts now"
	}
	return "the same one encrypts"
}

// readKeys reads a key file.
func readKeys(path string) reread.Reading { return reread.Read(path, maxKeyFile) }

// keyFile is a key file, which is read again and again. A mistake leaves the keys as they were.
type keyFile struct {
	looks  reread.Looks
	tell   Listener
	use    func(*keyring) // puts keys into force
	keys   *keyring       // in force
	last   reread.Reading // the newest one
	judged reread.Reading // the newest one that was put into force or rejected

	end   context.CancelFunc // nil while nothing reads
	ended sync.WaitGroup
}

// openKeyFile reads the file for the first time, when any mistake is an error. It takes no longer than five seconds.
func openKeyFile(path string, read func(string) reread.Reading) (*keyFile, error) {
	f := &keyFile{looks: reread.Looks{Path: path, Read: read, Label: "peers"}}
	r := f.looks.First()
	if r.Err != nil {
		return nil, fmt.Errorf("%w, want a file with a key, %s", r.Err, makeKey)
	}
	keys, err := parseKeys(path, r.Content)
	if err != nil {
		return nil, err
	}
	f.keys, f.last, f.judged = keys, r, r
	return f, nil
}

// start puts the keys into force, and has the file read again and again until stop is called.
func (f *keyFile) start(tell Listener, use func(*keyring)) {
	f.tell, f.use, f.looks.Recovered = tell, use, tell.Recovered
	use(f.keys)
	ctx, cancel := context.WithCancel(context.Background())
	f.end = cancel
	f.ended.Go(func() { pprof.Do(ctx, pprof.Labels("shaker", "peers"), f.follow) })
}

// stop ends what start has begun and waits for it, but not for the file. It may be called without start before.
func (f *keyFile) stop() {
	if f.end != nil {
		f.end()
		f.ended.Wait()
	}
}

// follow has one look at the file after the other.
func (f *keyFile) follow(ctx context.Context) {
	ticks := time.NewTicker(lookEvery)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case r := <-f.looks.Under():
			f.looks.End()
			f.take(r)
		case now := <-ticks.C:
			if f.looks.Begin(now) {
				f.judge(reread.Reading{Err: f.looks.Hanging()})
			}
		}
	}
}

// take judges a reading, if it is the second in a row that has found this.
func (f *keyFile) take(r reread.Reading) {
	if !r.Same(f.last) {
		f.last = r
		return
	}
	f.judge(r)
}

// judge puts a reading into force, or rejects it.
func (f *keyFile) judge(r reread.Reading) {
	if r.Same(f.judged) {
		return
	}
	f.judged = r
	keys, err := (*keyring)(nil), r.Err
	if err == nil {
		keys, err = parseKeys(f.looks.Path, r.Content)
	}
	if err != nil {
		f.tell.Warningf("Peers: the keys stay as they were: %v", err)
		return
	}
	change := keys.change(f.keys)
	f.keys = keys
	f.use(keys)
	if change == "" {
		change = "nothing has changed"
	}
	f.tell.Infof("Peers: keys in force from %s: %d, %s", f.looks.Path, len(keys.lines), change)
}
