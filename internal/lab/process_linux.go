package lab

import (
	"os/exec"
	"syscall"
)

// endWithParent has the process killed when the thread that starts it ends (prctl(2), PR_SET_PDEATHSIG).
func endWithParent(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
}
