// Package checker tells whether TCP ports answer, without the applications behind them noticing.
//
// A check sends a SYN and looks at what comes back. A SYN-ACK proves that the port accepts
// connections. A RST then takes the place of the final ACK, so that no connection reaches the listener's
// accept queue. HAProxy and LVS check in the same way.
//
// A check may be several tries ([Check.Tries]): while nothing answers, it sends further SYNs from other source ports. The
// answer that comes first decides. Time in which this process did not run is never taken for silence ([ErrPaused]).
//
// There are two ways in:
//
//   - [Prober] takes checks in batches and reports them in batches, without a goroutine for each.
//   - [Checker] blocks for one check at a time. It has the API of github.com/tevino/tcp-shaker, whose package
//     is called tcp: code written for it works with import tcp "github.com/coredns-shaker/shaker/checker".
//     [Checker.Check] takes a context and tells the round trip time.
//
// The methods, and what each needs:
//
//	method  system     needs        on the wire
//	socket  Linux      nothing      SYN, SYN-ACK, RST
//	raw     Linux      CAP_NET_RAW  SYN, SYN-ACK, RST
//	dial    any        nothing      SYN, SYN-ACK, ACK, RST: the listener sees a connection that is reset
//
// In profiles (runtime/pprof), the goroutines of a prober have the label shaker=prober.
package checker
