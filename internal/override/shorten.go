package override

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/gaissmai/bart"
)

// statement is a line of a file. Without a rule it is a comment.
type statement struct {
	text  string
	about *subject
	*Rule
	overtaken bool // an auto that a wider line overtakes for as long as it lasts
	idle      bool // makes no difference from now on
}

// shortened returns the lines of a file, which has no mistake, that make a difference now or later, and its comments.
func shortened(content string, now time.Time) string {
	var all []*statement
	for line := range linesOf(content) {
		s := &statement{text: line}
		if about, rule, err := parseLine(line); err == nil && rule != nil {
			s.about, s.Rule, s.idle = about, rule, rule.endedAt(now)
		}
		all = append(all, s)
	}
	markOvertaken(all)
	markEmpty(all)
	kept := make([]byte, 0, len(content))
	for _, s := range all {
		if !s.idle {
			kept = append(kept, s.text...)
		}
	}
	return string(kept)
}

// markOvertaken marks what later lines overtake for as long as it lasts: those for the same, or wider ones in the case of an
// auto.
func markOvertaken(all []*statement) {
	ends := make(map[subject]time.Time) // of later lines
	var wide bart.Table[time.Time]      // the same of prefixes
	for _, s := range slices.Backward(all) {
		if s.Rule == nil || s.idle {
			continue
		}
		later, known := ends[*s.about]
		s.idle = known && !s.end().After(later)
		if s.Says == Auto {
			for _, later := range wide.Supernets(s.about.prefix) {
				s.overtaken = s.overtaken || !s.end().After(later)
			}
		}
		if !known || s.end().After(later) {
			ends[*s.about] = s.end()
			if s.about.port == 0 {
				wide.Insert(s.about.prefix, s.end())
			}
		}
	}
}

// markEmpty marks each auto that is an exception from nothing: no line before it is for the same, and either it is overtaken,
// or none is for something wider and it overtakes none itself.
func markEmpty(all []*statement) {
	same := make(map[subject]bool)
	var wide, autos bart.Lite
	for _, s := range all {
		if s.Rule == nil || s.idle {
			continue
		}
		if s.Says == Auto {
			needed := isAny(wide.Supernets(s.about.prefix)) || s.about.port == 0 && isAny(autos.Subnets(s.about.prefix))
			if s.idle = !same[*s.about] && (s.overtaken || !needed); s.idle {
				continue
			}
			autos.Insert(s.about.prefix)
		}
		same[*s.about] = true
		if s.about.port == 0 {
			wide.Insert(s.about.prefix)
		}
	}
}

// isAny tells whether there are any.
func isAny[E any](all iter.Seq[E]) bool {
	for range all {
		return true
	}
	return false
}

// replace puts something shorter into the place of what is in a file that is locked.
func replace(path string, file *os.File, before, after string) error {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	if err := replaceWhole(path, file, before, after); err == nil || errors.Is(err, errChanged) {
		return err
	}
	// A bind mount cannot be replaced, and the directory may be closed to us.
	return overwrite(path, before, after)
}

// replaceWhole puts another file into the place of one, at once and with the same mode and owner.
func replaceWhole(path string, file *os.File, before, after string) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if hasOtherNames(info) {
		return errors.New("it has other names, which would stay with the old file")
	}
	fresh, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(fresh.Name()) // which does nothing once it has another name
	defer fresh.Close()
	if _, err := fresh.WriteString(after); err != nil {
		return err
	}
	if err := errors.Join(keepOwner(fresh, info), fresh.Chmod(info.Mode().Perm()), fresh.Sync(), fresh.Close()); err != nil {
		return err
	}
	// Not all who write ask for the lock.
	if r := read(path); r.Err == nil && r.Content != before {
		return fmt.Errorf("%s: %w", path, errChanged)
	}
	if err := os.Rename(fresh.Name(), path); err != nil {
		return err
	}
	if dir, err := os.Open(filepath.Dir(path)); err == nil {
		dir.Sync() // as far as this system can
		dir.Close()
	}
	return nil
}

// overwrite writes something shorter over what is in a file. What was there is kept elsewhere until that is done.
func overwrite(path, before, after string) error {
	kept, err := os.CreateTemp("", filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	_, err = io.WriteString(kept, before)
	if err := errors.Join(err, kept.Sync(), kept.Close()); err != nil {
		os.Remove(kept.Name())
		return err
	}
	if err := rewrite(path, after); err != nil {
		if backErr := rewrite(path, before); backErr != nil {
			return fmt.Errorf("%w; what was in it is in %s", err, kept.Name())
		}
		os.Remove(kept.Name())
		return err
	}
	os.Remove(kept.Name())
	return nil
}

// rewrite makes a text all that is in a file.
func rewrite(path, text string) error {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	if err == nil {
		err = file.Truncate(int64(len(text)))
	}
	return errors.Join(err, file.Sync(), file.Close())
}
