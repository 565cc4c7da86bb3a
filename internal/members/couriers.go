package members

import (
	"encoding/binary"
	"net"
	"sync"
	"time"
)

const (
	// maxQueue and maxQueues bound what waits for connections, in octets: to one member, and to all. What is beyond is
	// dropped, and asked for again by its numbers.
	maxQueue  = 16 << 20
	maxQueues = 64 << 20
)

// couriers carry messages over connections. Each member has its own, so one that hangs delays nobody else.
type couriers struct {
	mu     sync.Mutex
	queues map[string]*queue
	octets int

	ended sync.WaitGroup
}

// queue is what waits for a connection to a member, and what is on its way over one. Somebody is at work on it for as long as
// it is in the map.
type queue struct {
	messages [][]byte
	octets   int // with those on their way
}

// post has a message carried to a member. It makes a copy.
func (c *couriers) post(t *transport, to string, message []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	q := c.queues[to]
	if t.ctx.Err() != nil || len(message) > maxMessage || c.octets+len(message) > maxQueues || q != nil && q.octets+len(message) > maxQueue {
		return
	}
	if q == nil {
		q = new(queue)
		if c.queues == nil {
			c.queues = make(map[string]*queue)
		}
		c.queues[to] = q
		c.ended.Go(func() { c.carry(t, to, q) })
	}
	q.messages = append(q.messages, append([]byte(nil), message...))
	q.octets += len(message)
	c.octets += len(message)
}

// carry works on a queue until nothing is in it.
func (c *couriers) carry(t *transport, to string, q *queue) {
	for messages := c.next(to, q, nil); len(messages) > 0; messages = c.next(to, q, messages) {
		// What is lost by an error is asked for again.
		_ = t.deliver(to, messages)
	}
}

// next takes all that is in a queue, when what was taken before is done. A queue with nothing in it is removed.
func (c *couriers) next(to string, q *queue, done [][]byte) [][]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range done {
		q.octets -= len(m)
		c.octets -= len(m)
	}
	messages := q.messages
	q.messages = nil
	if len(messages) == 0 {
		delete(c.queues, to)
	}
	return messages
}

// deliver sends messages over a connection.
func (t *transport) deliver(to string, messages [][]byte) error {
	p, ok := t.members.of(to)
	if !ok {
		return nil // it has left meanwhile
	}
	conn, err := t.dial(p.at, to, forUser, patience)
	if err != nil {
		return err
	}
	defer conn.Close()
	for _, m := range messages {
		if err := t.deliverOne(conn, m); err != nil {
			return err
		}
	}
	return nil
}

func (t *transport) deliverOne(conn net.Conn, m []byte) error {
	if err := conn.SetDeadline(time.Now().Add(maxRead)); err != nil {
		return err
	}
	if _, err := conn.Write(append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(m)), uint32(len(m))), m...)); err != nil {
		return err
	}
	t.counts.sent(len(m))
	return nil
}
