package lab

import "runtime"

// HeapInUse returns how many octets of heap are reachable.
func HeapInUse() int {
	// What is in a sync.Pool survives one collection.
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}
