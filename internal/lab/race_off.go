//go:build !race

package lab

// RaceEnabled tells whether the race detector is at work, which slows tests down and makes sync.Pool forget things.
const RaceEnabled = false
