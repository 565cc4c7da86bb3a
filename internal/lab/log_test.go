package lab

import (
	"log"
	"regexp"
	"slices"
	"testing"
)

func TestCaptureLog(t *testing.T) {
	before := log.Writer()
	t.Run("captures", func(t *testing.T) {
		outer := CaptureLog(t)
		log.Print("one")
		t.Run("within", func(t *testing.T) {
			inner := CaptureLog(t)
			log.Print("two")
			inner.Expect(t, regexp.MustCompile("^two\n$"))
		})
		if got := outer.Take(); !slices.Equal(got, []string{"one"}) {
			t.Errorf("took %q", got)
		}
		log.Print("three\nfour")
		if got := outer.Take(); !slices.Equal(got, []string{"three", "four"}) || outer.String() != "one\nthree\nfour\n" {
			t.Errorf("took %q of %q", got, outer.String())
		}
	})
	if log.Writer() != before {
		t.Error("the log is still captured")
	}
}
