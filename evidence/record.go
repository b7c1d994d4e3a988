// Package evidence keeps what experiments showed: one folder a run, named by
// its content, written once and verified whenever it is read. It knows no
// contracts: predictions and verdicts are data to it.
//
// A bundle is a folder <root>/<contract>/<falsifier>/<time>-<hash> with
// record.json and the full output of every step. The record holds the hashes of
// the outputs, the folder's name the hash of the record, and a contract the
// name of the folder, so that a change at any place is seen. What it cannot
// show by itself is who wrote it: for that a bundle can be signed.
package evidence

import "time"

// Schema names the form of a record.
const Schema = "pv-evidence-v1"

// Verdicts of a run. Only Pass and Fail are measurements.
const (
	Pass    = "pass"    // every prediction matched
	Fail    = "fail"    // a prediction did not match
	Blocked = "blocked" // something the test requires is missing
	Broken  = "broken"  // the test could not be carried out: no such program, out of time
)

// Record is what one run did and showed.
type Record struct {
	Schema     string    `json:"schema"`
	Contract   Contract  `json:"contract"`
	Falsifier  string    `json:"falsifier"`
	Definition string    `json:"definition_sha256"` // of the prediction and its test
	Level      string    `json:"level"`             // what a pass can show
	Verdict    string    `json:"verdict"`
	Reason     string    `json:"reason,omitempty"` // of blocked and broken
	Missing    []string  `json:"missing,omitempty"`
	Handled    *bool     `json:"handled,omitempty"` // after a failure: did what if_fails promises happen
	Started    time.Time `json:"started"`
	Ended      time.Time `json:"ended"`

	Steps       []Step       `json:"steps"`
	Predictions []Prediction `json:"predictions"`

	Machine  Machine  `json:"machine"`
	Programs []Input  `json:"programs"`
	Models   []Input  `json:"models"`
	Sources  *Sources `json:"sources,omitempty"`
	Git      Git      `json:"git"`
	Tool     string   `json:"tool"` // the program that wrote the record
}

// Contract is the contract as it was when the test ran.
type Contract struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	SHA256  string `json:"sha256"`
}

// Step is one command and what came of it.
type Step struct {
	Name     string              `json:"name,omitempty"`
	Argv     []string            `json:"argv"`
	Env      []string            `json:"env,omitempty"` // what the test sets
	Exit     int                 `json:"exit"`
	TimedOut bool                `json:"timed_out,omitempty"`
	Seconds  float64             `json:"seconds"`
	Stdout   Output              `json:"stdout"`
	Stderr   Output              `json:"stderr"`
	Files    map[string]FileFact `json:"files,omitempty"` // those that predictions ask for
}

// Output is a stream that lies beside the record.
type Output struct {
	File   string `json:"file"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// FileFact is a file that a step left behind.
type FileFact struct {
	Exists bool   `json:"exists"`
	Bytes  int64  `json:"bytes,omitempty"`
	SHA256 string `json:"sha256,omitempty"`
}

// Prediction is a row of the table: what was predicted, what was seen.
type Prediction struct {
	Step      int    `json:"step"` // counted from 1; 0 for handled
	Predicted string `json:"predicted"`
	Observed  string `json:"observed"`
	Match     bool   `json:"match"`
}

// Machine is where the run took place.
type Machine struct {
	OS      string   `json:"os"`
	Arch    string   `json:"arch"`
	Kernel  string   `json:"kernel,omitempty"`
	CPU     string   `json:"cpu,omitempty"`
	Threads int      `json:"threads"`
	Memory  int64    `json:"memory_bytes,omitempty"`
	Devices []string `json:"devices,omitempty"` // GPUs and their drivers
}

// Input is a file whose content decides the result.
type Input struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"`
	Bytes  int64  `json:"bytes"`
}

// Sources are files of the repository that decide the result, under one hash.
type Sources struct {
	Paths  []string `json:"paths"`
	SHA256 string   `json:"sha256"`
}

// Git is the state of the repository.
type Git struct {
	Commit string `json:"commit,omitempty"`
	Dirty  bool   `json:"dirty,omitempty"` // with changes that are not committed
}
