// Command synping is ping for TCP ports: a SYN goes out, and what comes back is shown with the time it took. By default,
// on Linux, the handshake is cut off before its end, so that the application behind the port never sees a connection.
//
// synping -h tells how to use it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"time"

	"github.com/coredns-shaker/shaker/checker"
)

// The exit statuses are those of ping(8).
const (
	exitAnswered   = 0 // every check was answered
	exitUnanswered = 1 // some were not, or there was none
	exitFailed     = 2 // the command line is wrong, or checking is not possible
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop) // the second Ctrl-C ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is the whole command. When ctx ends it prints the summary of what there was, and returns.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	s, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		io.WriteString(stdout, usage)
		return exitAnswered
	}
	if err != nil {
		fmt.Fprintf(stderr, "synping: %v\nsynping -h tells how to use it.\n", err)
		return exitFailed
	}
	status, err := ping(ctx, s, stdout, stderr)
	if err != nil {
		fmt.Fprintf(stderr, "synping: %v\n", err)
		return exitFailed
	}
	return status
}

// ping carries out what s asks for, from the names' resolution to the summary.
func ping(ctx context.Context, s settings, stdout, stderr io.Writer) (int, error) {
	targets, err := resolve(ctx, net.DefaultResolver, s.targets, s.network)
	if err != nil {
		return 0, err
	}
	p := newPinger(s, targets, newPrinter(s, stdout))
	if isTerminal(stderr) && !s.json {
		p.progress = &progress{w: stderr, shared: isTerminal(stdout)}
	}
	p.prober, err = checker.NewProber(checker.Config{Method: s.method, Pool: s.concurrency}, p.deliver)
	if err != nil {
		return 0, fmt.Errorf("cannot start: %w", err)
	}
	if err := p.run(ctx); err != nil {
		return 0, err
	}
	if !p.total.allAnswered() {
		return exitUnanswered, nil
	}
	return exitAnswered, nil
}

// settings are what the command line asks for.
type settings struct {
	count       int // rounds; 0 is until interrupted
	concurrency int // checks under way at once
	interval    time.Duration
	timeout     time.Duration
	method      checker.Method
	network     string // as net.Resolver.LookupNetIP takes it: ip, ip4 or ip6
	json        bool
	targets     []string
}

const (
	maxCount = 1_000_000_000
	// maxConcurrency is beyond what one source address has ports for.
	maxConcurrency = 65536
	maxInterval    = 24 * time.Hour
	maxTimeout     = time.Hour
)

// parse reads the command line. As with ping, flags may come after targets.
func parse(args []string) (settings, error) {
	s := settings{count: 4, concurrency: 64, interval: time.Second, timeout: time.Second, network: "ip"}
	var v4, v6 bool
	flags := flag.NewFlagSet("synping", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // the caller prints the error
	flags.Usage = func() {}
	flags.Func("n", "", whole(&s.count, 0, maxCount, "a number up to 1000000000, or 0 to go on until Ctrl-C"))
	flags.Func("c", "", whole(&s.concurrency, 1, maxConcurrency, fmt.Sprintf("a number from 1 to %d", maxConcurrency)))
	flags.Func("i", "", duration(&s.interval, 0, maxInterval, "a time from 0 to 24h, such as 200ms"))
	flags.Func("t", "", duration(&s.timeout, 1, maxTimeout, "a time above 0, up to 1h, such as 500ms"))
	flags.Func("method", "", func(value string) (err error) {
		s.method, err = checker.ParseMethod(value)
		return err
	})
	flags.BoolVar(&v4, "4", false, "")
	flags.BoolVar(&v6, "6", false, "")
	flags.BoolVar(&s.json, "json", false, "")
	for {
		if err := flags.Parse(args); err != nil {
			return settings{}, err
		}
		if flags.NArg() == 0 {
			break
		}
		s.targets = append(s.targets, flags.Arg(0))
		args = flags.Args()[1:]
	}
	switch {
	case v4 && v6:
		return settings{}, errors.New("-4 and -6 exclude each other: leave one out, or both for either family")
	case v4:
		s.network = "ip4"
	case v6:
		s.network = "ip6"
	}
	if len(s.targets) == 0 {
		return settings{}, errors.New("no target: want HOST:PORT, such as example.org:443")
	}
	return s, nil
}

func whole(to *int, least, most int, want string) func(string) error {
	return func(value string) error {
		n, err := strconv.Atoi(value)
		if err != nil || n < least || n > most {
			return errors.New("want " + want)
		}
		*to = n
		return nil
	}
}

// duration takes bare numbers as seconds, since ping does.
func duration(to *time.Duration, least, most time.Duration, want string) func(string) error {
	return func(value string) error {
		if _, err := strconv.ParseFloat(value, 64); err == nil {
			value += "s"
		}
		d, err := time.ParseDuration(value)
		if err != nil || d < least || d > most {
			return errors.New("want " + want)
		}
		*to = d
		return nil
	}
}

const usage = `usage: synping [-n COUNT] [-c CONCURRENCY] [-i INTERVAL] [-t TIMEOUT]
               [-method socket|raw|dial] [-4|-6] [-json] HOST:PORT...

Sends a SYN to each HOST:PORT, COUNT times, and shows what came back and when.

  -n COUNT        checks per target; 0 goes on until Ctrl-C (default 4)
  -c CONCURRENCY  how many checks may be under way at once (default 64)
  -i INTERVAL     time from one round to the next, a round being one check of
                  each target; 0 is as fast as CONCURRENCY lets (default 1s)
  -t TIMEOUT      how long an answer may take (default 1s)
  -method METHOD  socket  the kernel connects, cut off before its last ACK
                          (Linux; the default there)
                  raw     SYNs of our own, which cannot complete a handshake
                          (Linux, with CAP_NET_RAW)
                  dial    completes the handshake, then resets it: the
                          application may notice (the default elsewhere)
  -4, -6          IPv4 or IPv6 only
  -json           JSON lines instead of text, see below
  -h              this text

HOST is an address, or a name that is resolved once; of its addresses the first
is checked, as ping does. PORT is a number or a service's name. An IPv6 address
stands in brackets. Times have units (200ms, 1.5s); a bare number is seconds.

Results: answered (SYN-ACK), refused (RST), timeout, unreachable (ICMP error, or
no ARP reply), and inconclusive (a fault of this machine, which says nothing
about the target). Loss is the share of checks that were not answered, for
whatever reason. The times in the summary are those of answered checks; mdev is
their standard deviation. Ctrl-C prints the summary; checks that it cuts short
do not count.

With -json, each check is a line when it is done, and each target at the end:
  check    type ("check"), target (as given), address, method, seq (from 1),
           time (of the SYN), result; rtt_ms if answered or refused; error
           unless answered; cause, one word, if inconclusive
  summary  type ("summary"), target, address, method, sent, answered,
           loss_percent, time_ms (how long the run took), results (a number for
           each result); if any was answered rtt_min_ms, rtt_avg_ms, rtt_max_ms,
           rtt_mdev_ms

Exit status: 0 if every check was answered, 1 if not, 2 if the command line is
wrong or checks are not possible.

Examples:
  synping example.org:443               four checks, a second apart
  synping -n 0 '[2001:db8::1]:22'       until Ctrl-C
  synping -n 1 web1:80 web2:80 web3:80  is each of them up?
  synping -n 10000 -i 0 192.0.2.7:443   how long does a SYN-ACK take under load?
  synping -json 192.0.2.7:443 | jq -r 'select(.type == "check") | .rtt_ms'
`
