# Plain text to HTML (type=html) or man(7) (type=man).

function escape(text) {
	if (type == "man") {
		gsub(/\\/, "\\e", text)
		gsub(/-/, "\\-", text)
		if (text ~ /^[.']/)
			text = "\\&" text
	} else {
		gsub(/&/, "\\&amp;", text)
		gsub(/</, "\\&lt;", text)
		gsub(/>/, "\\&gt;", text)
	}
	return text
}

# Ends what is open: a paragraph or a list.
function finish() {
	if (type == "html" && open == "p")
		print "</p>"
	if (type == "html" && open == "ul")
		print "</li>\n</ul>"
	open = ""
}

function title(text) {
	if (type == "man")
		print ".TH \"" toupper(text) "\" 1\n.SH NAME\n" escape(text)
	else
		print "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>" \
		    escape(text) "</title></head>\n<body>\n<h1>" escape(text) "</h1>"
}

function section(text) {
	if (type == "man")
		print ".SH " toupper(escape(text))
	else
		print "<h2>" escape(text) "</h2>"
}

function item(text) {
	if (type == "man")
		print ".IP \\(bu 2\n" escape(text)
	else if (open == "ul")
		print "</li>\n<li>" escape(text)
	else
		print "<ul>\n<li>" escape(text)
}

/^= /	{ finish(); title(substr($0, 3)); next }
/^== /	{ finish(); section(substr($0, 4)); next }
/^- / {
	if (open == "p")
		finish()
	item(substr($0, 3))
	open = "ul"
	next
}
/^$/	{ finish(); next }
{
	if (open == "") {
		print type == "man" ? ".PP" : "<p>"
		open = "p"
	}
	print escape($0)
}
END {
	finish()
	if (type == "html")
		print "</body>\n</html>"
}
