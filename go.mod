module github.com/apr-engine/apr

go 1.26.0

require (
	golang.org/x/sys v0.49.0
	golang.org/x/text v0.43.0
)

require github.com/dlclark/regexp2/v2 v2.12.0
