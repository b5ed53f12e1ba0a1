package cloudinit_test

import (
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/cloudinit"
)

// What is here was judged by Jinja2 3.1 with its extension do.

func TestATemplateThatCanNeverRenderIsRefusedWithItsLine(t *testing.T) {
	for template, want := range map[string]string{
		"a: {{ x\n":                                 "line 3: {{ has no end",
		"a: 1\nb: {{ x\n\n}\n":                      "line 4: {{ has a } that closes nothing",
		"{# a\n":                                    "line 3: the comment {# has no end #}",
		"a: {% raw %}{{\n":                          "line 3: {% raw %} has no {% endraw %}",
		"{% if x %}\n{% if y %}\n{% endif %}\n":     "line 3: {% if %} has no {% endif %}",
		"a: 1\n{% endif %}\n":                       "line 4: {% endif %} ends nothing that is open",
		"{% for a in b %}\n{% endif %}\n":           "line 4: {% endif %} ends nothing that is open",
		"{% foo %}\n":                               "line 3: cloud-init knows no tag {% foo %}",
		"{% break %}\n":                             "line 3: cloud-init knows no tag {% break %}",
		"a: {{ }}\n":                                "line 3: there is nothing between {{ and }}",
		"a: {{- -}}\n":                              "line 3: there is nothing between {{ and }}",
		"{% %}\n":                                   "line 3: a {% has no name of a tag behind it",
		"{% if %}{% endif %}\n":                     "line 3: {% if %} says nothing",
		"{% else %}\n":                              "line 3: {% else %} belongs to nothing",
		"{% if a %}{% else if b %}{% endif %}\n":    `line 3: {% else %} has "if" behind it; it may be elif that is meant`,
		"{% if a %}{% else %}{% else %}{% endif %}": "line 3: {% else %} belongs to nothing",
		"{% if a %}{% endif a %}\n":                 `line 3: {% endif %} has "a" behind it`,
		"{% set x %}\n":                             "line 3: {% set %} has no {% endset %}",
		"a: {{ 'x }}\n":                             "line 3: a string in {{ has no end",
		"a: {{ [x }}\n":                             "line 3: {{ has a } that closes nothing",
		"a: {{ x #}\n":                              "line 3: {{ has a # in it, which no expression has",
		"a: {{ $x }}\n":                             "line 3: {{ has a $ in it, which no expression has",
	} {
		_, err := cloudinit.CheckUserData([]byte("## template: jinja\n#cloud-config\n" + template))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", template, err, want)
		}
	}
}

func TestWhatJinjaTakesIsTaken(t *testing.T) {
	for _, template := range []string{
		"a: {{ x }}", "a: {{x}}", "a: {{- x -}} b", "a: {{ '}}' }}", `a: {{ "it's \" }}" }}`, "a: {{ {'a': {}} }}", "a: {{ {'a':{}}}}", "a: {{ x }}}}",
		"a: {{ x['y'][1:2] | default('z', true) ~ 1.5e3 // 2 ** 3 % 4 }}", "a: {{\nx\n}}", "a: #} %} }}", "a: {#", "a: {#\n", "{% raw %}\n", "{% print %}", "a: { b: 1 }", "a: {", "a: {}", "a: ${x} {",
		"{# a {{ {% #}", "{#- a -#}", "{#\n\n#}", "{% raw %}{{ {% if %} {#{% endraw %}", "{%- raw -%}{{{{%- endraw -%}", "{% raw %}{% raw %}{% endraw %}",
		"{% if x %}a{% elif y %}b{% elif z %}c{% else %}d{% endif %}", "{%- if x -%}a{%- endif -%}", "{%+ if x +%}{% endif %}", "{%\nif x\n%}\n{%\nendif\n%}",
		"{% if x: %}a{% else: %}b{% endif %}", "{% if '%}' %}{% endif %}", "{%if x%}{%endif%}", "{% if x %}{% for a in b %}{% else %}{% endfor %}{% else %}{% endif %}",
		"{% for a, b in c.items() if a recursive %}{{ loop(a) }}{% else %}x{% endfor %}",
		"{% set x = 1 %}", "{% set x, y = 1, 2 %}", "{% set ns = namespace(a=1) %}{% set ns.a = 2 %}", "{% set x %}a{% endset %}", "{% set x | replace('a', b='c') %}a{% endset %}",
		"{% set x = {'a': 1} %}", "{% set x = y == z %}",
		"{% macro f(a, b=1) %}{{ a }}{% endmacro %}{% call f(1) %}x{% endcall %}{% call(y) f(1) %}x{% endcall %}", "{% filter upper %}a{% endfilter %}",
		"{% with %}{% endwith %}", "{% with a = 1, b = 2 %}{{ a }}{% endwith %}", "{% autoescape true %}{% endautoescape %}",
		"{% block a %}{% endblock %}", "{% block b scoped %}{% endblock b %}", "{% extends 'x' %}", "{% include 'x' ignore missing %}",
		"{% import 'x' as y %}", "{% from 'x' import y as z %}", "{% print x %}", "{% do x.append(1) %}", "a: {{ \u00e4 }}", "a: {{ x }}\r\nb: {% if x %}\r\n{% endif %}",
	} {
		if _, err := cloudinit.CheckUserData([]byte("## template: jinja\n#cloud-config\n" + template)); err != nil {
			t.Errorf("%q: %v", template, err)
		}
	}
}
