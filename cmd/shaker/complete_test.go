package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// downBody has targets that are down.
const downBody = `{"version":1,"targets":[{"address":"192.0.2.7","port":80},{"address":"192.0.2.7","port":443},{"address":"2001:db8::7","port":443}]}`

var completions = []struct{ line, want string }{
	{"shaker tar", "targets target"},
	{"shaker -server x dr", "drain"},
	{"shaker targets -st", "-state"},
	{"shaker targets --st", "--state"},
	{"shaker targets -state ", "down unknown up"},
	{"shaker -state=down targets -pa", "-page"},
	{"shaker events -kind over", "override overrides"},
	{"shaker explain www.example.org A", "A AAAA ANY"},
	{"shaker drain 192", "192.0.2.7"},
	{"shaker drain 192.0.2.7 20", "2001:db8::7"},
	{"shaker drain 192.0.2.7 -for ", "30m 1h 2h 4h 1d"},
	{"shaker drain -- -f", ""},
	{"shaker target 2", ""},
	{"shaker target [", "[2001:db8::7]:443"},
	{"shaker target 192.0.2.7:4", "192.0.2.7:443"},
	{"shaker undrain ", "192.0.2.7"},
	{"shaker completion z", "zsh"},
	{"shaker help ta", "targets target"},
	{"shaker nonsense ", ""},
	{"shaker version ", ""},
}

func completionServer(t *testing.T) string {
	return answers{"/targets.json?size=1000&state=down": downBody, "/overrides.json": overridesBody}.serve(t)
}

func TestComplete(t *testing.T) {
	server := completionServer(t)
	for _, tt := range completions {
		p, stdout, stderr := newProgram()
		p.env = func(string) string { return server }
		words := strings.Split(strings.Replace(tt.line, "-server x ", "", 1), " ")
		if status := p.run(t.Context(), append([]string{completing}, words[1:]...)); status != exitDone || stderr.String() != "" {
			t.Errorf("%s: status %d, %s", tt.line, status, stderr)
		}
		if got := strings.Join(strings.Fields(stdout.String()), " "); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.line, got, tt.want)
		}
	}
}

// shellCommand makes shaker a command of a shell that has its completion.
func shellCommand(t *testing.T, shell, script string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(shell)
	if err != nil {
		t.Skipf("%v, want the package %s", err, shell)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if err := os.Symlink(self, filepath.Join(bin, "shaker")); err != nil {
		t.Fatal(err)
	}
	command := exec.Command(path, append(args, "-c", script)...)
	// The race detector has each process wait for a second before its end.
	command.Env = append(os.Environ(), asCommand+"=1", "GORACE=atexit_sleep_ms=0", "SHAKER_SERVER="+completionServer(t), "PATH="+bin+":"+os.Getenv("PATH"))
	output, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", shell, err, output)
	}
	return string(output)
}

// Bash replaces what stands behind the last of the characters that break words.
func TestBash(t *testing.T) {
	script := "source <(shaker completion bash)\n"
	var want []string
	for _, tt := range completions {
		if strings.Contains(tt.line, "-server x") {
			continue
		}
		script += "COMP_LINE='" + tt.line + "' COMP_POINT=${#COMP_LINE}; COMP_LINE='" + tt.line + "'; COMP_POINT=${#COMP_LINE}; _shaker; echo \"${COMPREPLY[*]}\"\n"
		typed := tt.line[strings.LastIndex(tt.line, " ")+1:]
		kept := typed[:strings.LastIndexAny(typed, ":=")+1]
		want = append(want, strings.ReplaceAll(" "+tt.want, " "+kept, " ")[1:])
	}
	if got := shellCommand(t, "bash", script, "--norc"); got != strings.Join(want, "\n")+"\n" {
		t.Errorf("got\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}

func TestZsh(t *testing.T) {
	script := "compdef() { :; }; source <(shaker completion zsh)\ncompadd() { shift; print -r -- \"$*\"; }\n"
	var want []string
	for _, tt := range completions {
		if strings.Contains(tt.line, "-server x") {
			continue
		}
		script += "words=(\"${(@s: :)${:-" + tt.line + "}}\"); CURRENT=${#words}; _shaker\n"
		want = append(want, tt.want)
	}
	if got := shellCommand(t, "zsh", script, "-f"); got != strings.Join(want, "\n")+"\n" {
		t.Errorf("got\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}
