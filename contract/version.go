package contract

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/semver"
)

// Bump is the part of a version that a change requires to rise.
type Bump int

// Bumps, smallest first. Words change the patch, additions and raised statuses
// the minor, what is removed or tightened the major part.
const (
	None Bump = iota
	Patch
	Minor
	Major
)

func (b Bump) String() string {
	return [...]string{"none", "patch", "minor", "major"}[b]
}

// MarshalText writes the bump's name.
func (b Bump) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// parts splits MAJOR.MINOR.PATCH. A version with a suffix is not bumped.
func parts(version string) ([3]int, error) {
	var n [3]int
	v := "v" + version
	if !semver.IsValid(v) || semver.Prerelease(v) != "" || semver.Build(v) != "" {
		return n, fmt.Errorf("version %q is not MAJOR.MINOR.PATCH", version)
	}
	for i, s := range strings.Split(semver.Canonical(v)[1:], ".") {
		var err error
		if n[i], err = strconv.Atoi(s); err != nil {
			return n, fmt.Errorf("version %q: %w", version, err)
		}
	}
	return n, nil
}

// NextVersion raises a version.
func NextVersion(version string, b Bump) (string, error) {
	n, err := parts(version)
	if err != nil {
		return "", err
	}
	switch b {
	case Major:
		n = [3]int{n[0] + 1, 0, 0}
	case Minor:
		n = [3]int{n[0], n[1] + 1, 0}
	case Patch:
		n[2]++
	}
	return fmt.Sprintf("%d.%d.%d", n[0], n[1], n[2]), nil
}

// bumpBetween is the part that rose from one version to a later one.
func bumpBetween(old, new string) (Bump, error) {
	a, err := parts(old)
	if err != nil {
		return None, err
	}
	b, err := parts(new)
	if err != nil {
		return None, err
	}
	for i, level := range []Bump{Major, Minor, Patch} {
		if a[i] < b[i] {
			return level, nil
		} else if a[i] > b[i] {
			return None, fmt.Errorf("version falls from %s to %s", old, new)
		}
	}
	return None, nil
}
