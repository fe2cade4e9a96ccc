/* calc: reads expressions, one per line, and prints what they come to. "_" is the last result. */

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *at;
static const char *error;
static double last;

static double sum(void);

static int
next(void)
{
	while (isspace((unsigned char)*at))
		at++;
	return (unsigned char)*at;
}

static double
operand(void)
{
	double value;
	char *end;

	switch (next()) {
	case '(':
		at++;
		value = sum();
		if (next() == ')')
			at++;
		else if (error == NULL)
			error = "a closing parenthesis is missing";
		return value;
	case '-':
		at++;
		return -operand();
	case '_':
		at++;
		return last;
	default:
		value = strtod(at, &end);
		if (end == at && error == NULL)
			error = "a number is missing";
		at = end;
		return value;
	}
}

static double
product(void)
{
	double value = operand(), right;
	int operator;

	while ((operator = next()) == '*' || operator == '/' || operator == '%') {
		at++;
		right = operand();
		if (operator == '*') {
			value *= right;
		} else if (right == 0) {
			if (error == NULL)
				error = "division by zero";
		} else if (operator == '/') {
			value /= right;
		} else {
			value -= right * (double)(long long)(value / right);
		}
	}
	return value;
}

static double
sum(void)
{
	double value = product();
	int operator;

	while ((operator = next()) == '+' || operator == '-') {
		at++;
		value += operator == '+' ? product() : -product();
	}
	return value;
}

int
main(void)
{
	char line[1024];
	double value;
	int status = 0;

	while (fgets(line, sizeof(line), stdin) != NULL) {
		line[strcspn(line, "\n")] = '\0';
		at = line;
		if (next() == '\0')
			continue;
		error = NULL;
		value = sum();
		if (error == NULL && next() != '\0')
			error = "this is not understood";
		if (error != NULL) {
			fprintf(stderr, "calc: column %d: %s\n", (int)(at - line) + 1, error);
			status = 65;
			continue;
		}
		last = value;
		printf("%.15g\n", value);
	}
	return status;
}
