# tinylang: an interpreter for a language that fits on a page.
#
#	let x = 1 + 2			use strings
#	print "x is " .. x		def twice s
#	if x > 2 / else / end			return s .. s
#	while x < 9 / end		end
#	for i = 1 to x / end		(since 1.3)
#
# A line "exec ..." is for sh: a program can have it second, after "#!/bin/sh".
# Run as: awk -v version=1.3 -v lib=DIRECTORY -f tinylang.awk program [argument ...]

function fail(what) {
	printf "%s: line %d: %s\n", ARGV[1], pc, what | "cat 1>&2"
	close("cat 1>&2")
	failed = 1
	exit 65
}

# Reads a program or module into line[]; modules stand before what uses them.
function load(file,    text, got) {
	while ((got = (getline text < file)) > 0) {
		sub(/^[ \t]+/, "", text)
		if (text ~ /^use /)
			load_module(substr(text, 5))
		else
			line[++lines] = text ~ /^(#|exec )/ ? "" : text
	}
	close(file)
	if (got < 0) {
		pc = lines
		fail("cannot read " file)
	}
}

function load_module(name) {
	if (!(name in loaded)) {
		loaded[name] = 1
		load(lib "/" name ".tl")
	}
}

# Finds for each block its else and end, and notes where functions begin.
function find_blocks(    top, stack, word, i) {
	for (i = 1; i <= lines; i++) {
		pc = i
		word = line[i]
		sub(/ .*/, "", word)
		if (word ~ /^(if|while|for|def)$/) {
			stack[++top] = i
			if (word == "for" && version < 1.3)
				fail("there is no \"for\" before version 1.3")
			if (word == "def")
				define(i)
		} else if (word == "else") {
			if (!top || line[stack[top]] !~ /^if /)
				fail("else without if")
			other[stack[top]] = i
		} else if (word == "end") {
			if (!top)
				fail("end without a beginning")
			start[i] = stack[top]
			if (stack[top] in other)
				last[other[stack[top]]] = i
			last[stack[top--]] = i
		}
	}
	if (top) {
		pc = stack[top]
		fail("the end is missing")
	}
}

function define(at,    words, n, i) {
	n = split(line[at], words, " ")
	if (words[2] == "")
		fail("a function without a name")
	body[words[2]] = at
	arity[words[2]] = n - 2
	for (i = 3; i <= n; i++)
		parameter[words[2], i - 2] = words[i]
}

# --- Expressions: each level of evaluation has what is left of its text in rest[level].

function accept(pattern) {
	sub(/^[ \t]+/, "", rest[level])
	if (!match(rest[level], "^(" pattern ")"))
		return 0
	token = substr(rest[level], 1, RLENGTH)
	rest[level] = substr(rest[level], RLENGTH + 1)
	return 1
}

function expect(pattern, what) {
	if (!accept(pattern))
		fail(what " expected at \"" rest[level] "\"")
}

function evaluate(text,    value) {
	rest[++level] = text
	value = disjunction()
	accept("[ \t]*")
	if (rest[level] != "")
		fail("not understood: \"" rest[level] "\"")
	level--
	return value
}

function disjunction(    value, right) {
	value = conjunction()
	while (accept("or ")) {
		right = conjunction()
		value = value || right
	}
	return value
}

function conjunction(    value, right) {
	value = comparison()
	while (accept("and ")) {
		right = comparison()
		value = value && right
	}
	return value
}

function is_number(value) {
	return value ~ /^-?[0-9]+([.][0-9]+)?$/
}

function comparison(    left, right, op, order) {
	left = joined()
	if (!accept("==|!=|<=|>=|<|>"))
		return left
	op = token
	right = joined()
	if (is_number(left) && is_number(right))
		order = left - right
	else
		order = (left "" > right "") - (left "" < right "")
	if (op == "==")
		return order == 0
	if (op == "!=")
		return order != 0
	if (op ~ /=/ && order == 0)
		return 1
	return op ~ /</ ? order < 0 : order > 0
}

function joined(    value) {
	value = total()
	while (accept("[.][.]"))
		value = value "" total()
	return value
}

function total(    value, op, right) {
	value = product()
	while (accept("[+-]")) {
		op = token
		right = product()
		value = op == "+" ? value + right : value - right
	}
	return value
}

function product(    value, op, right) {
	value = operand()
	while (accept("[*/%]")) {
		op = token
		right = operand()
		if (op != "*" && right + 0 == 0)
			fail("division by zero")
		value = op == "*" ? value * right : op == "/" ? value / right : value % right
	}
	return value
}

function operand(    value, name) {
	if (accept("-"))
		return -operand()
	if (accept("not "))
		return !operand()
	if (accept("[0-9]+([.][0-9]+)?"))
		return token + 0
	if (accept("\"[^\"]*\""))
		return substr(token, 2, length(token) - 2)
	if (accept("[(]")) {
		value = disjunction()
		expect("[)]", ")")
		return value
	}
	expect("[A-Za-z_][A-Za-z0-9_]*", "a value")
	name = token
	if (accept("[(]"))
		return call(name)
	if ((frame, name) in variable)
		return variable[frame, name]
	if (!((0, name) in variable))
		fail("there is no variable " name)
	return variable[0, name]
}

# --- Functions

function call(name,    n, i, args, value, back) {
	if (!accept("[)]")) {
		do
			args[++n] = disjunction()
		while (accept(","))
		expect("[)]", ")")
	}
	if (!(name in body))
		return builtin(name, args[1], args[2], args[3])
	if (n + 0 != arity[name])
		fail(name " wants " arity[name] " values")
	if (++depth > 200)
		fail("functions call each other too deeply")
	back = frame SUBSEP pc
	frame = ++frames
	for (i = 1; i <= n; i++)
		variable[frame, parameter[name, i]] = args[i]
	returned = 0
	result = ""
	run(body[name] + 1, last[body[name]] - 1)
	value = result
	returned = 0
	depth--
	split(back, args, SUBSEP)
	frame = args[1]
	pc = args[2]
	return value
}

function builtin(name, a, b, c,    text) {
	if (name == "len")
		return length(a "")
	if (name == "part")
		return substr(a, b, c)
	if (name == "upper")
		return toupper(a)
	if (name == "int")
		return int(a)
	if (name == "arg")
		return ARGV[a + 1]
	if (name == "args")
		return ARGC - 2
	if (name == "input")		# the next line; "more" says if there was one
		return (variable[0, "more"] = ((getline text < "-") > 0)) ? text : ""
	if (name == "run") {		# the first line a command prints
		a | getline text
		close(a)
		return text
	}
	fail("there is no function " name)
}

# --- Statements

function assign(text,    name) {
	if (!match(text, /^[A-Za-z_][A-Za-z0-9_]*[ \t]*=/))
		fail("\"let name = value\" expected")
	name = substr(text, 1, RLENGTH - 1)
	sub(/[ \t]+$/, "", name)
	text = substr(text, RLENGTH + 1)
	variable[frame, name] = evaluate(text)
	return name
}

# for name = from to limit: sets the variable at the beginning, and says if there is a turn to do.
function next_turn(at,    text, name, to) {
	text = substr(line[at], 5)
	to = index(text, " to ")
	if (!to)
		fail("\"for name = from to limit\" expected")
	if ((frame, at) in turning) {
		name = turning[frame, at]
		variable[frame, name]++
	} else
		name = turning[frame, at] = assign(substr(text, 1, to - 1))
	if (variable[frame, name] <= evaluate(substr(text, to + 4)))
		return 1
	delete turning[frame, at]
	return 0
}

function run(from, to,    text, word, after) {
	for (pc = from; pc <= to && !returned; pc = after) {
		after = pc + 1
		text = word = line[pc]
		if (text == "")
			continue
		sub(/ .*/, "", word)
		sub(/^[^ ]+ */, "", text)
		if (word == "let")
			assign(text)
		else if (word == "print")
			print evaluate(text)
		else if (word == "if") {
			if (!evaluate(text))
				after = (pc in other ? other[pc] : last[pc]) + 1
		} else if (word == "while") {
			if (!evaluate(text))
				after = last[pc] + 1
		} else if (word == "for") {
			if (!next_turn(pc))
				after = last[pc] + 1
		} else if (word == "def" || word == "else")
			after = last[pc] + 1
		else if (word == "end") {
			if (line[start[pc]] ~ /^(while|for) /)
				after = start[pc]
		} else if (word == "return") {
			result = evaluate(text)
			returned = 1
		} else
			evaluate(line[pc])
	}
}

BEGIN {
	if (ARGC < 2) {
		print "usage: tl program [argument ...]" | "cat 1>&2"
		exit 64
	}
	level = frame = frames = depth = lines = 0
	load(ARGV[1])
	find_blocks()
	run(1, lines)
	exit
}
