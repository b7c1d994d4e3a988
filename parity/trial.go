package parity

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// Trial is what became of a driver that was tried in a child process.
type Trial struct {
	Format  int    `json:"format"`
	Backend string `json:"backend"`
	Device  string `json:"device,omitempty"` // as asked for; empty for the backend's choice
	Driver  string `json:"driver"`           // backend.Isolated.Driver
	Build   string `json:"build"`            // of this executable
	// Failure says how the driver failed, NoDevice why it has nothing to drive; both
	// are empty if it works.
	Failure  string    `json:"failure,omitempty"`
	NoDevice string    `json:"no_device,omitempty"`
	Created  time.Time `json:"created"`
	Sum      string    `json:"sum"` // SHA-256 of the rest
}

const (
	trialSuffix = ".trial.json"
	// failedTrial is how long it is remembered that a driver was of no use: a machine
	// that was busy or a card that was in use must not keep it out for ever.
	failedTrial = 24 * time.Hour
)

func (t Trial) sum() string {
	t.Sum = ""
	data, err := json.Marshal(t)
	if err != nil {
		return ""
	}
	h := sha256.Sum256(data)
	return hex.EncodeToString(h[:])
}

func (t Trial) file() string {
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %q %q", t.Backend, t.Device, t.Driver, t.Build)
	return shortSum(h) + trialSuffix
}

// known reports whether a trial can be told from others.
func (t Trial) known() bool { return t.Backend != "" && t.Driver != "" && t.Build != "" }

// Tried finds the trial of the same backend, device, driver and build. One that
// is damaged or has expired counts as absent.
func (s *Store) Tried(like Trial) (Trial, bool) {
	if s == nil || s.Dir == "" || !like.known() {
		return Trial{}, false
	}
	f, err := os.Open(filepath.Join(s.Dir, like.file()))
	if err != nil {
		return Trial{}, false
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxCertBytes))
	var t Trial
	if err != nil || json.Unmarshal(data, &t) != nil || t.Format != certFormat || t.Sum != t.sum() {
		s.warn("trial %s is ignored: it is damaged", f.Name())
		return Trial{}, false
	}
	same := t.Backend == like.Backend && t.Device == like.Device && t.Driver == like.Driver && t.Build == like.Build
	age := time.Since(t.Created)
	if !same || age < -clockSlack || (t.Failure != "" || t.NoDevice != "") && age > failedTrial {
		return Trial{}, false
	}
	return t, true
}

// PutTrial remembers a trial.
func (s *Store) PutTrial(t Trial) {
	if s == nil || s.Dir == "" || !t.known() {
		return
	}
	t.Format, t.Created = certFormat, time.Now().UTC().Truncate(time.Second)
	t.Sum = t.sum()
	data, err := json.MarshalIndent(t, "", "  ")
	if err == nil {
		err = writeAtomic(s.Dir, t.file(), append(data, '\n'))
	}
	if err != nil {
		s.warn("trial is not kept: %v", err)
	}
}
