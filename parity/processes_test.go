package parity_test

import (
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/apr-engine/apr/parity"
)

// writerEnv makes this test binary a process that writes certificates.
const writerEnv = "APR_TEST_CERT_WRITER"

// TestCertificateWriter is such a process: it writes certificates of its own
// make under the common key until it is told to stop.
func TestCertificateWriter(t *testing.T) {
	dir, number, ok := strings.Cut(os.Getenv(writerEnv), "|")
	if !ok {
		t.Skip("it is a process of TestProcessesWriteTheSameCertificate")
	}
	n, err := strconv.Atoi(number)
	if err != nil {
		t.Fatal(err)
	}
	s, problems := watched(dir)
	c := pass(key())
	// Certificates of different lengths: one that is written over another would
	// leave a tail.
	c.Covered = slices.Repeat([]string{"kernel/" + number}, 1+200*n)
	c.Context = 100 + n
	for range 200 {
		s.Put(c)
		if got, ok := s.Get(key()); !ok || got.Context < 100 || len(got.Covered) != 1+200*(got.Context-100) {
			t.Fatalf("read back %v, context %d, %d kernels", ok, got.Context, len(got.Covered))
		}
	}
	if len(*problems) > 0 {
		t.Error(*problems)
	}
}

// Processes that write the same certificate leave a valid one, at every moment.
func TestProcessesWriteTheSameCertificate(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	dir := t.TempDir()
	var writers []*exec.Cmd
	outputs := make([]strings.Builder, 3)
	for i := range outputs {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestCertificateWriter$")
		cmd.Env = append(os.Environ(), writerEnv+"="+dir+"|"+strconv.Itoa(i))
		cmd.Stdout, cmd.Stderr = &outputs[i], &outputs[i]
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		writers = append(writers, cmd)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i, w := range writers {
			if err := w.Wait(); err != nil {
				t.Errorf("process %d: %v\n%s", i, err, outputs[i].String())
			}
		}
	}()
	s, problems := watched(dir)
	seen, from := 0, map[int]bool{}
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
			time.Sleep(time.Millisecond)
		}
		if c, ok := s.Get(key()); ok {
			seen++
			from[c.Context] = true
		} else if seen > 0 {
			t.Fatal("the certificate is gone, or broken")
		}
	}
	if len(*problems) > 0 || seen == 0 {
		t.Errorf("%d reads, problems %q", seen, *problems)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("%d files are left, want one; %v", len(entries), err)
	}
	if c, ok := s.Get(key()); !ok || c.Status != parity.Validated {
		t.Errorf("at the end: %v", c.Status)
	}
	t.Logf("%d reads, of %d writers", seen, len(from))
}
