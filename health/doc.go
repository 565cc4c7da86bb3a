// Package health keeps a table of targets, decides when each is probed, and turns the results into
// verdicts: up, down or not known yet.
//
// A target is an address and port together with the [Settings] that make its verdict. It enters the
// table when somebody asks for it ([Monitor.Target]) and leaves it when nobody has asked for a while.
// A [Monitor] is one goroutine that sends the probes that are due through a [Prober] and takes their
// reports ([Monitor.Deliver]). In profiles (runtime/pprof) it has the label shaker=monitor. To read a
// verdict takes no lock and allocates nothing.
//
// # When the verdict changes
//
// An unknown target is up after its first answer and down after its first refusal. Silence and ICMP
// errors bring it down only after Fall of them in a row. A target that is up goes down after Fall
// failures of any kind in a row, and one that is down is up after Rise answers in a row. An inconclusive
// result, this machine's own fault, breaks no row and changes no verdict, except as told below.
//
// A target that goes down again and again is damped: it stays down for longer each time, although it
// answers ([Settings].Damping).
//
// # When this machine is at fault
//
// When nearly all hosts fall silent together, this machine is likelier to be cut off than they are to be
// dead, and verdicts freeze ([Monitor.SetFreeze]).
//
// Where this machine has no path to a target ([checker.NoPath]: no route, or a firewall of its own rejects),
// nobody can tell whether the target lives, and answers are better without it. A target that is up goes down
// when at least Fall results in a row say so, for 20 s. Of the hosts that were up and were probed since, more
// than a tenth (more than 100 less the percent of SetFreeze, where that is set) have to be heard of, and not
// only after the same trouble. So nothing goes down on a machine that reaches nobody, or whose trouble comes
// and goes. [Change] and [Status] have the result Inconclusive then, and its error. Rise answers bring the
// target up again, as ever. An unknown target stays unknown: there may never have been a path from here.
//
// # Several replicas
//
// Where a [Council] of replicas decides ([Monitor.SetCouncil]), a target has two verdicts. The own standing is what the checks of
// this replica have led to, by all the rules above. The verdict in force is what the council has decided: [Target.State] and
// [Change] are about that. The rule by which replicas decide is that of [Agree], and [Weight] tells who is asked. Both are pure
// functions, and so are [InDoubt], [Contradicted] and [IsStuck].
//
// A few replicas observe a target, and it rests with all others: these do not probe it. Who begins to observe takes the
// verdict in force for its own standing, probes at once and every Fast, and says [Checking] until a result that is not inconclusive
// agrees with that, or results have changed it. Who has no verdict, and sees an inconclusive result, says [Unable]. So does who
// has one, after Fall inconclusive results in a row. From then on it goes along with the verdict in force, as if it had just
// begun.
//
// Where all peers fall silent together with the hosts, this machine is cut off, and verdicts freeze ([Monitor.LostPeers]).
//
// # How long a failure goes unnoticed
//
// A target that refuses from some moment on is down no later than
//
//	Interval + (Fall-1)*Fast + the time that the refusal takes
//
// after that moment. Timeout bounds the last term. A target that falls silent takes longer, since each
// of its probes has to run into its timeout before the next may be sent:
//
//	Interval + (Fall-1)*max(Fast, Timeout) + Timeout
//
// Both hold while the rate limit defers no probe, no result is inconclusive and verdicts are not frozen. With a council they are
// about the own standing.
//
// A target to which there is no path any more is down no later than
//
//	Interval + max(20 s + Interval, (Fall-1)*Interval)
//
// after that, 24 s with the defaults, while enough others are heard of every half minute.
package health
