package lab

import (
	"bytes"
	"log"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// Log holds what was written to it. Any goroutine may write and read.
type Log struct {
	mu    sync.Mutex
	text  bytes.Buffer
	taken int // octets that Take has returned
}

// CaptureLog collects what package log writes, without date and time, until the end of the test. That log belongs to the
// whole process, so the test cannot be one of those that run in parallel.
func CaptureLog(t testing.TB) *Log {
	t.Helper()
	t.Setenv("SHAKER_LOG_CAPTURED", "1") // fails in a test that is parallel
	l := new(Log)
	writer, flags := log.Writer(), log.Flags()
	log.SetOutput(l)
	log.SetFlags(0)
	t.Cleanup(func() {
		log.SetOutput(writer)
		log.SetFlags(flags)
	})
	return l
}

// Write implements io.Writer.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// String returns all that was written.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Take returns the lines that no Take before it has returned, without line feeds and without space around them.
func (l *Log) Take() (lines []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fresh := l.text.String()[l.taken:]
	l.taken = l.text.Len()
	for line := range strings.Lines(fresh) {
		lines = append(lines, strings.TrimSpace(line))
	}
	return lines
}

// Expect waits until something matches.
func (l *Log) Expect(t testing.TB, pattern *regexp.Regexp) {
	t.Helper()
	UntilNil(t, func() error {
		if text := l.String(); !pattern.MatchString(text) {
			return &missingLine{pattern, text}
		}
		return nil
	})
}

type missingLine struct {
	pattern *regexp.Regexp
	text    string
}

func (e *missingLine) Error() string { return "no " + e.pattern.String() + " in\n" + e.text }
