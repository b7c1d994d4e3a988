//go:build unix

package falsify

import (
	"os/exec"
	"syscall"
)

// ownGroup makes a command the head of a process group that ends as a whole: a
// child that goes on would keep the pipes open.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
