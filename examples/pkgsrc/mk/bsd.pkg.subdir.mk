# What makes a directory of the top or of a category: its SUBDIR list.

.OBJDIR:	${.CURDIR}

.PHONY: all show-subdir-var
all:
	@echo "${.CURDIR:T}: ${COMMENT}"; echo "Packages are built one by one, in their own directories."

show-subdir-var:
	@printf '%s\n' ${${VARNAME}:Q}
