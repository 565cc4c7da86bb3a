// Command shaker is for people on call: it shows what the status server of a CoreDNS with shaker knows, tells why a name
// is answered as it is, follows what changes, and takes hosts out of answers for a while.
//
// shaker help tells how to use it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"
	"time"
)

// Exit statuses.
const (
	exitDone   = 0
	exitFailed = 1 // it could not be done
	exitUsage  = 2 // the command line is wrong
	// exitPipe is what shells see of a program that writes to a pipe which nobody reads any more: 128 + SIGPIPE.
	exitPipe = 141
)

func main() {
	// Ctrl-C and a closed pipe end this process as they end any other: there is nothing to clean up, since every line is
	// a single write.
	p := &program{
		stdout:   os.Stdout,
		stderr:   os.Stderr,
		env:      os.Getenv,
		colour:   isTerminal(os.Stdout) && runtime.GOOS != "windows" && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb",
		zone:     time.Local,
		now:      time.Now,
		files:    files,
		patience: patience,
		gone:     readerGone,
	}
	os.Exit(p.run(context.Background(), os.Args[1:]))
}

// program is what a command has to do with the world around it.
type program struct {
	stdout, stderr io.Writer
	env            func(name string) string
	colour         bool           // the output may have colours
	zone           *time.Location // of the times that people see
	now            func() time.Time
	files          editor
	patience       time.Duration                           // until a file that was written has to be in force
	gone           func(ctx context.Context, to io.Writer) // returns when nobody reads the output any more, or ctx ends
}

// isTerminal tells whether somebody looks at what is written there.
func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// errGone is the end of a command whose output nobody reads any more.
var errGone = errors.New("nobody reads the output any more")

// usageError is a mistake in the command line.
type usageError struct {
	error
	command string // whose help tells more; empty for that of the program
}

// run carries out a command line, and returns the exit status.
func (p *program) run(ctx context.Context, args []string) int {
	err := p.carryOut(ctx, args)
	var usage usageError
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errGone), errors.Is(err, syscall.EPIPE):
		return exitPipe
	case errors.As(err, &usage):
		help := "shaker help"
		if usage.command != "" {
			help += " " + usage.command
		}
		p.complain("%v\n%s tells how to use it.", err, help)
		return exitUsage
	default:
		p.complain("%v", err)
		return exitFailed
	}
}

// complain writes to the standard error, which has what is not asked for.
func (p *program) complain(format string, args ...any) {
	fmt.Fprintf(p.stderr, "shaker: %s\n", cleanLines(fmt.Sprintf(format, args...)))
}

func (p *program) carryOut(ctx context.Context, args []string) error {
	if len(args) > 0 && args[0] == completing {
		p.complete(ctx, args[1:])
		return nil
	}
	command, s, err := parse(args)
	if err != nil {
		return err
	}
	if s.help {
		return p.print(helpText(command))
	}
	return command.run(p, ctx, s)
}

// print writes to the standard output.
func (p *program) print(text string) error {
	if _, err := io.WriteString(p.stdout, text); err != nil {
		return fmt.Errorf("cannot write the output: %w", err)
	}
	return nil
}
