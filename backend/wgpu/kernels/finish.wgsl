{{- /* What follows a product: v is its value, or four, row its place in bias, at in y. */ -}}
{{- if .Bias}}
  v += bias[row];
{{- end}}
{{- if eq .Residual 1}}
  v += y[at];
{{- else if eq .Residual 2}}
  v += residual[at];
{{- end}}
{{- if .CapText}}
  v = {{if .Fours}}soft4(v){{else}}soft(v){{end}};
{{- end}}
  y[at] = v;
