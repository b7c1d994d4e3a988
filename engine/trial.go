package engine

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/parity"
)

// trialDeadline bounds the trial of a driver in a child process: creating a
// context and compiling kernels takes seconds on a slow machine.
const trialDeadline = 60 * time.Second

// EnvTrial is set in a process that tries a driver, so that it starts no other.
const EnvTrial = "APR_DRIVER_TRIAL"

// trialReport is what the child says at its end, as the last line of its output.
// A child that says nothing has died.
type trialReport struct {
	OK       bool   `json:"ok"`
	NoDevice string `json:"no_device,omitempty"` // why there is nothing to drive
	Error    string `json:"error,omitempty"`
}

// SelfTest is the child's side of a trial: it initialises the backend's driver,
// finds the device and runs its own test, in this process, whatever that does to
// it. It writes the report for the parent.
func SelfTest(w io.Writer, name, device string) error {
	var r trialReport
	switch err := selfTest(name, device); {
	case err == nil:
		r.OK = true
	case errors.Is(err, backend.ErrNoDevice):
		r.NoDevice = absence(err)
	default:
		r.Error = err.Error()
	}
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "\n%s\n", data)
	return err
}

// anyDevice, instead of a device, has a trial look for devices only.
const anyDevice = "*"

func selfTest(name, device string) error {
	b, err := backend.Find(name)
	if err != nil {
		return err
	}
	devices, err := b.Probe()
	if err != nil {
		return err
	}
	if device == anyDevice {
		for _, d := range devices {
			err = errors.Join(err, d.Close())
		}
		return err
	}
	d, err := choose(name, devices, device)
	if err != nil {
		return err
	}
	return errors.Join(backend.SelfTest(d), d.Close())
}

// try runs a backend's driver in a child process unless that has been done
// before with this driver and build, or the backend's driver cannot do harm. The
// error says how it failed; backend.ErrNoDevice if there is none.
func (o GateOptions) try(ctx context.Context, b backend.Backend, device string) error {
	isolated, ok := b.(backend.Isolated)
	if !ok || len(o.Child) == 0 {
		return nil
	}
	t := parity.Trial{Backend: b.Name(), Device: device, Driver: isolated.Driver(), Build: parity.BuildID()}
	known, ok := o.Store.Tried(t)
	if !ok || o.Renew {
		err := tryChild(ctx, append(slices.Clone(o.Child), b.Name(), device), trialLimit(o.ChildLimit))
		if ctx.Err() != nil {
			return ctx.Err()
		}
		known = t
		switch {
		case errors.Is(err, backend.ErrNoDevice):
			known.NoDevice = absence(err)
		case err != nil:
			known.Failure = err.Error()
		}
		o.Store.PutTrial(known)
	}
	switch {
	case known.NoDevice == backend.ErrNoDevice.Error():
		return backend.ErrNoDevice
	case known.NoDevice != "":
		return fmt.Errorf("%w: %s", backend.ErrNoDevice, known.NoDevice)
	case known.Failure != "":
		return errors.New(known.Failure)
	}
	return nil
}

func trialLimit(d time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return trialDeadline
}

// tryChild runs a child and judges how it ended.
func tryChild(ctx context.Context, command []string, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = append(os.Environ(), EnvTrial+"=1", "GOTRACEBACK=none")
	cmd.WaitDelay = time.Second // pipes that a child of the child holds open
	var out, words bytes.Buffer
	cmd.Stdout, cmd.Stderr = &tail{buf: &out}, &tail{buf: &words}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("the driver cannot be tried in a process of its own: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var err error
	select {
	case err = <-ended:
	case <-time.After(limit + 2*cmd.WaitDelay):
		// A process in the kernel's hands cannot even be killed. Its buffers are
		// still being written to.
		return fmt.Errorf("the driver does not answer within %v and cannot be ended", limit)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("the driver does not answer within %v%s", limit, lastWords(words.Bytes()))
	}
	if err != nil {
		return fmt.Errorf("the driver ended the process that tried it (%w)%s", err, lastWords(words.Bytes()))
	}
	return readReport(out.Bytes(), words.Bytes())
}

// readReport reads the last line of the child's output.
func readReport(out, words []byte) error {
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	var r trialReport
	if err := json.Unmarshal(lines[len(lines)-1], &r); err != nil {
		return fmt.Errorf("the driver ended the process that tried it without a word%s", lastWords(words))
	}
	switch {
	case r.NoDevice != "":
		return fmt.Errorf("%w: %s", backend.ErrNoDevice, r.NoDevice)
	case r.Error != "":
		return errors.New(r.Error)
	case !r.OK:
		return errors.New("the driver's self-test says nothing")
	}
	return nil
}

// lastWords is what a process said before it died: the line that a Go program
// begins its death with, or the last one.
func lastWords(stderr []byte) string {
	const most = 200
	last := ""
	for s := bufio.NewScanner(bytes.NewReader(stderr)); s.Scan(); {
		line := strings.TrimSpace(s.Text())
		if line == "" {
			continue
		}
		last = line
		if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") || strings.HasPrefix(line, "SIG") {
			break
		}
	}
	if last == "" {
		return ""
	}
	return ": " + strings.ToValidUTF8(last[:min(len(last), most)], "")
}

// tail keeps the end of what is written to it.
type tail struct{ buf *bytes.Buffer }

const tailBytes = 64 << 10

func (t *tail) Write(p []byte) (int, error) {
	if t.buf.Len()+len(p) > 2*tailBytes {
		t.buf.Next(max(0, t.buf.Len()-tailBytes))
	}
	t.buf.Write(p[max(0, len(p)-tailBytes):])
	return len(p), nil
}
