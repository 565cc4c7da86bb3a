package override

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"
)

// Edit is what was done to a file, and what a person should know of it.
type Edit struct {
	// Rules were added to the file, a line each. There are none where that is not needed.
	Rules []Rule
	// Changes are what they change from now on, ten at most.
	Changes []Change
	// Notes are what else there is to know, a sentence each.
	Notes []string
}

// Add adds a rule to the end of a file. It is an error if the address or CIDR, the end, which has to be after now, or the
// reason, which is up to 200 characters on one line, is not possible. So is a file that is not there, cannot be written,
// comes from a ConfigMap, or has a mistake. The end is rounded up to a full second.
//
// All who write a file by this package wait for each other, up to five seconds. The file stays the same one, with its mode
// and owner, whether it is a bind mount or at the end of symbolic links. Only a file that would be larger than 1 MiB is
// written anew, without lines that no longer matter.
func Add(path string, rule Rule, now time.Time) (Edit, error) {
	about, rule, err := valid(rule, now)
	if err != nil {
		return Edit{}, err
	}
	return edit(path, now, func(string, *Rules) ([]Rule, []string) { return []Rule{rule}, nil }, func(content string, added *Edit) {
		if note := afterwards(content, about, rule); note != "" {
			added.Notes = append(added.Notes, note)
		}
	})
}

// TakeBack has an address, an address and port or a CIDR left to its checks again, where it is down now. For that it adds
// lines to the end of a file, as Add does; the reason is for all of them.
//
//   - What a rule of its own has down gets an auto.
//   - What a wider rule has down gets an auto as well, and so is an exception. The wider rule stays.
//   - With an address go its ports that are down by rules of their own.
//   - With a CIDR goes nothing inside it that is down by a rule of its own: somebody had a reason for that. The notes name it.
//
// Where replicas share the file, inForce are the rules in force, whichever of them has said those. What they have down counts
// like what the file has down.
func TakeBack(path, what, reason string, now time.Time, inForce ...Rule) (Edit, error) {
	about, rule, err := valid(Rule{What: what, Reason: reason}, now)
	if err != nil {
		return Edit{}, err
	}
	return edit(path, now, func(content string, rules *Rules) ([]Rule, []string) {
		for _, other := range inForce {
			other.Reason = ""
			content = ended(content) + other.String()
		}
		if shared, err := Parse(content, now); err == nil {
			rules = shared
		}
		return rules.release(about, rule)
	}, func(string, *Edit) {})
}

// valid returns a rule in the form that it has in files.
func valid(rule Rule, now time.Time) (subject, Rule, error) {
	about, err := parseSubject(strings.TrimSpace(rule.What))
	if err != nil {
		return about, rule, err
	}
	if rule.Says > Down {
		return about, rule, fmt.Errorf("%d is not possible, want up, down or auto", rule.Says)
	}
	if !rule.Until.IsZero() {
		rule.Until = rule.Until.UTC().Add(time.Second - 1).Truncate(time.Second)
		switch {
		case rule.endedAt(now):
			return about, rule, fmt.Errorf("until: %s is over, want a time after %s", timeString(rule.Until), timeString(now.Truncate(time.Second)))
		case rule.Until.Year() > 9999:
			return about, rule, errors.New("until: it is after the year 9999, want an earlier time, or none for a rule that does not end")
		}
	}
	if err := CheckReason(rule.Reason); err != nil {
		return about, rule, err
	}
	rule.What, rule.Reason = about.String(), harmless(rule.Reason)
	return about, rule, nil
}

// CheckReason returns what is wrong with a reason that Add or TakeBack is to write: it has up to 200 characters, on one line.
func CheckReason(reason string) error {
	for _, r := range reason {
		if !unicode.IsPrint(r) && r != '\t' && !unicode.Is(unicode.Zs, r) || r == utf8.RuneError {
			return fmt.Errorf("reason: %s has the character %q, want a single line of text", quote(reason), r)
		}
	}
	if n := utf8.RuneCountInString(strings.TrimSpace(reason)); n > maxReason {
		return fmt.Errorf("reason: it has %d characters, want %d at most", n, maxReason)
	}
	return nil
}

// afterwards tells what becomes of what a rule is about when the rule ends, unless it is left to its checks.
func afterwards(content string, about subject, rule Rule) string {
	if rule.Until.IsZero() {
		return ""
	}
	rules, err := Parse(content, rule.Until)
	if err != nil {
		return ""
	}
	next, found := rules.decides(about)
	if !found || next.Says == Auto {
		return ""
	}
	return fmt.Sprintf("After %s another line holds: %s", timeString(rule.Until), next)
}

// release returns the lines that leave to its checks what is down, and what to say about that.
func (r *Rules) release(about subject, line Rule) (lines []Rule, notes []string) {
	decides, found := r.decides(about)
	isDown := found && decides.Says == Down
	if isDown {
		lines = append(lines, line)
		if decides.What != line.What {
			notes = append(notes, fmt.Sprintf("%s is an exception now from %s, which stays %s", about, decides.What, decides.says()))
		}
	}
	isAddress := about.prefix.IsSingleIP()
	for _, inner := range slices.SortedFunc(subjects(r.all()), subject.compare) {
		rule, _ := r.decides(inner)
		switch {
		case rule.Says != Down || inner == about || !about.holds(inner):
		case isAddress:
			line.What = inner.String()
			lines = append(lines, line)
		default:
			notes = append(notes, fmt.Sprintf("%s stays %s, by a rule of its own", rule.What, rule.says()))
		}
	}
	switch {
	case len(lines) > 0:
	case found && decides.Says == Up:
		notes = append(notes, fmt.Sprintf("%s is not down, but %s by the rule for %s", about, decides.says(), decides.What))
	default:
		notes = append(notes, fmt.Sprintf("%s is not down by any rule", about))
	}
	if more := len(notes) - maxLines; more > 0 {
		notes = append(notes[:maxLines], fmt.Sprintf("And %d more like that", more))
	}
	return lines, notes
}

// plan is what is to be done to a file.
type plan struct {
	before string // what is in it
	add    string // at its end
	Edit
}

// planFor works out what to add to what is in a file.
func planFor(path, content string, now time.Time, decide func(content string, rules *Rules) ([]Rule, []string)) (*plan, error) {
	before, err := Parse(content, now)
	if err != nil {
		return nil, fmt.Errorf("%s is not in force, want it mended first: %w", path, err)
	}
	p := &plan{before: content}
	p.Rules, p.Notes = decide(content, before)
	for _, rule := range p.Rules {
		p.add += rule.String() + "\n"
	}
	after, err := Parse(ended(content)+p.add, now)
	if err != nil {
		return nil, fmt.Errorf("%s would have a mistake: %w", path, err)
	}
	p.Changes, _ = after.Difference(before, now, maxLines)
	return p, nil
}

// lines writes what is to be added within a sentence.
func (p *plan) lines() string { return strings.ReplaceAll(strings.TrimSuffix(p.add, "\n"), "\n", "; ") }

// ended returns lines of which the last one has an end.
func ended(lines string) string {
	if lines == "" || strings.HasSuffix(lines, "\n") || strings.HasSuffix(lines, "\r") {
		return lines
	}
	return lines + "\n"
}

// errChanged is that somebody who does not lock files has changed this one meanwhile.
var errChanged = errors.New("it is changed by others all the time, want them to pause")

// edit adds to a file what is decided from the rules in it, and has the result completed from all that is in it then.
func edit(path string, now time.Time, decide func(content string, rules *Rules) ([]Rule, []string), complete func(content string, e *Edit)) (Edit, error) {
	for try := 1; ; try++ {
		e, err := editOnce(path, now, decide, complete)
		if !errors.Is(err, errChanged) || try == 3 {
			return e, err
		}
	}
}

func editOnce(path string, now time.Time, decide func(content string, rules *Rules) ([]Rule, []string), complete func(content string, e *Edit)) (Edit, error) {
	r := read(path)
	if r.Err != nil {
		return Edit{}, fmt.Errorf("%v, want the file that the property overrides names", r.Err)
	}
	p, err := planFor(path, r.Content, now, decide)
	if err != nil || len(p.Rules) == 0 {
		return editOf(p), err
	}
	if isMounted(path) {
		return Edit{}, fmt.Errorf("%s comes from a ConfigMap or Secret, and cannot be changed here; want there, by kubectl edit: %s", path, p.lines())
	}
	file, err := openLocked(path)
	switch {
	case errors.Is(err, syscall.EROFS):
		return Edit{}, fmt.Errorf("%w, want where the file comes from, such as a ConfigMap: %s", err, p.lines())
	case errors.Is(err, fs.ErrPermission):
		return Edit{}, fmt.Errorf("%w, want the right to write it, such as with sudo, or by somebody who has that: %s", err, p.lines())
	case err != nil:
		return Edit{}, err
	}
	defer file.Close()
	// Only now nobody else who asks for the lock changes it.
	if r = read(path); r.Err != nil {
		return Edit{}, r.Err
	}
	if p, err = planFor(path, r.Content, now, decide); err != nil || len(p.Rules) == 0 {
		return editOf(p), err
	}
	after, err := p.carryOut(path, file, now)
	if err != nil {
		return Edit{}, err
	}
	complete(after, &p.Edit)
	return p.Edit, nil
}

func editOf(p *plan) Edit {
	if p == nil {
		return Edit{}
	}
	return p.Edit
}

// isMounted tells whether the kubelet writes a file. It keeps those of a ConfigMap in a directory whose name is the time of
// its writing behind two dots, which ..data leads to. What others write there is gone with the next version.
func isMounted(path string) bool {
	resolved, err := filepath.EvalSymlinks(path)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(strings.Split(filepath.ToSlash(filepath.Dir(resolved)), "/"), func(name string) bool {
		return strings.HasPrefix(name, "..") && len(name) > 2
	})
}

// carryOut adds to a file, and returns what is in it then.
func (p *plan) carryOut(path string, file *os.File, now time.Time) (after string, err error) {
	info, err := file.Stat()
	if err != nil {
		return "", err
	}
	if info.Size() != int64(len(p.before)) {
		return "", fmt.Errorf("%s: %w", path, errChanged)
	}
	end := strings.TrimPrefix(ended(p.before), p.before)
	if len(p.before)+len(end)+len(p.add) <= maxSize {
		return p.before + end + p.add, appendTo(file, info.Size(), end+p.add)
	}
	after = ended(shortened(p.before, now)) + p.add
	if len(after) > maxSize {
		return "", fmt.Errorf("%s would be larger than %d octets, also without lines that no longer matter, want some removed", path, maxSize)
	}
	return after, replace(path, file, p.before, after)
}

// appendTo adds to a file of that size, or leaves it as it is.
func appendTo(file *os.File, size int64, text string) error {
	n, err := file.WriteString(text)
	if err == nil {
		return file.Sync()
	}
	// Of a line that is not complete nothing is left, unless others have written behind it.
	if info, statErr := file.Stat(); n > 0 && statErr == nil && info.Size() == size+int64(n) {
		err = errors.Join(err, file.Truncate(size))
	}
	return err
}

// lockPatience is how long to wait for others who write the file.
const lockPatience = 5 * time.Second

// openLocked opens a file to add to it, when nobody else has the lock on it. Closing it ends the lock.
func openLocked(path string) (*os.File, error) {
	for deadline := time.Now().Add(lockPatience); ; {
		file, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|syscall.O_NONBLOCK, 0)
		if err != nil {
			return nil, err
		}
		if err := lock(file, deadline); err != nil {
			file.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		// Who had the lock before may have put another file in its place.
		mine, err := file.Stat()
		there, statErr := os.Stat(path)
		if err == nil && statErr == nil && os.SameFile(mine, there) {
			return file, nil
		}
		file.Close()
		if err := errors.Join(err, statErr); err != nil {
			return nil, err
		}
		if !time.Now().Before(deadline) {
			return nil, fmt.Errorf("%s is replaced all the time, want others to pause", path)
		}
	}
}
