# Package patterns and version numbers as pkg_install understands them.
#
# Reads package names, one per line, and prints those that ENVIRON["PATTERN"] matches; with
# -v best=1 only the best of them: the highest version, of equal ones the name that sorts first.
# Exits 0 if there was a match, 1 if not, 2 if the pattern is malformed.

# Splits a version into out[1..out["n"]] and out["nb"].
function scan_version(text, out,    n) {
	split("", out)
	text = tolower(text)
	while (text != "") {
		if (match(text, /^[0-9]+/))
			out[++n] = substr(text, 1, RLENGTH) + 0
		else if (match(text, /^([._]|pl)/))
			out[++n] = 0
		else if (match(text, /^alpha/))
			out[++n] = -3
		else if (match(text, /^beta/))
			out[++n] = -2
		else if (match(text, /^(pre|rc)/))
			out[++n] = -1
		else if (match(text, /^nb[0-9]*/))
			out["nb"] = substr(text, 3, RLENGTH - 2)
		else if (match(text, /^[a-z]/)) {
			out[++n] = 0
			out[++n] = index("abcdefghijklmnopqrstuvwxyz", substr(text, 1, 1))
		} else
			match(text, /^./)	# any other byte counts for nothing
		text = substr(text, RLENGTH + 1)
	}
	out["n"] = n + 0
}

# Below, at or above zero as version a is older than, equal to or newer than b.
function compare(a, b,    x, y, i) {
	scan_version(a, x)
	scan_version(b, y)
	for (i = 1; i <= x["n"] || i <= y["n"]; i++)
		if (x[i] + 0 != y[i] + 0)
			return x[i] - y[i]
	return x["nb"] - y["nb"]
}

function holds(version, op, bound,    order) {
	order = compare(version, bound)
	if (op == "<")
		return order < 0
	if (op == "<=")
		return order <= 0
	return op == ">" ? order > 0 : order >= 0
}

function base_of(name) {
	sub(/-[^-]*$/, "", name)
	return name
}

# base>=1, base<2, base>=1<2 and so on.
function dewey(pattern, name,    base, op, rest, version) {
	match(pattern, /[<>]=?/)
	base = substr(pattern, 1, RSTART - 1)
	op = substr(pattern, RSTART, RLENGTH)
	rest = substr(pattern, RSTART + RLENGTH)
	if (name !~ /-/ || base_of(name) "" != base "")
		return 0
	version = substr(name, length(base) + 2)
	if (op ~ />/ && match(rest, /<=?/)) {
		if (!holds(version, substr(rest, RSTART, RLENGTH), substr(rest, RSTART + RLENGTH)))
			return 0
		match(rest, /</)
		rest = substr(rest, 1, RSTART - 1)
	}
	return holds(version, op, rest)
}

# {a,b,c}: each alternative of the first group in its turn, by all the rules.
function alternatives(pattern, name,    head, tail, c, i, n, depth, part, hit) {
	head = substr(pattern, 1, index(pattern, "{") - 1)
	for (i = length(head) + 1; i <= length(pattern); i++) {
		c = substr(pattern, i, 1)
		if (c == "{" && depth++ == 0 || c == "}" && --depth == 0 || c == "," && depth == 1)
			n++
		else
			part[n] = part[n] c
		if (n && depth == 0)
			break
	}
	if (depth) {
		printf "malformed pattern `%s': unbalanced braces\n", pattern | "cat 1>&2"
		malformed = 1
		return 0
	}
	tail = substr(pattern, i + 1)
	for (i = 1; i < n && !hit; i++)
		hit = matches(head part[i] tail, name)
	return hit
}

# A shell pattern as a regular expression.
function glob(pattern,    out, c, i, end) {
	for (i = 1; i <= length(pattern); i++) {
		c = substr(pattern, i, 1)
		end = c == "[" ? index(substr(pattern, i + 2), "]") : 0
		if (c == "*")
			out = out ".*"
		else if (c == "?")
			out = out "."
		else if (end) {
			c = substr(pattern, i, end + 2)
			sub(/^\[!/, "[^", c)
			out = out c
			i += end + 1
		} else {
			if (c == "\\")
				c = substr(pattern, ++i, 1)
			out = out (c ~ /[A-Za-z0-9_-]/ ? c : c == "^" || c == "\\" ? "\\" c : "[" c "]")
		}
	}
	return "^" out "$"
}

function matches(pattern, name) {
	if (index(pattern, "{"))
		return alternatives(pattern, name)
	if (pattern ~ /[<>]/)
		return dewey(pattern, name)
	return name "" == pattern "" || name ~ glob(pattern) || name ~ glob(pattern "-[0-9]*")
}

function better(a, b,    order) {
	order = compare(substr(a, length(base_of(a)) + 2), substr(b, length(base_of(b)) + 2))
	return order > 0 || (order == 0 && a "" < b "")
}

matches(ENVIRON["PATTERN"], $0) {
	found = 1
	if (!best)
		print
	else if (top == "" || better($0, top))
		top = $0
}

END {
	if (top != "")
		print top
	exit malformed ? 2 : !found
}
