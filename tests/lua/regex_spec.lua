local regex = require "llmproxy.regex"

local function compile(pattern, options) return assert(regex.compile(pattern, options)) end

return {
  ["find gives the first match and its groups"] = function(t)
    local key = compile "(\\w+)=(\\d+)?(x)?"
    t.equal({ key:find("; a=1; b=2") }, { 3, 5, "a", "1" })
    t.equal({ key:find("; a=1; b=2", 6) }, { 8, 10, "b", "2" })
    t.equal({ key:find("a=x") }, { 1, 3, "a", nil, "x" })
    t.equal(key:find("nothing"), nil)
    t.equal(key:find(""), nil)
    t.equal(key:find("a=1", 20), nil)
  end,

  ["matches gives the places of all, count their number"] = function(t)
    local digits = compile "\\d+"
    t.equal(digits:matches("1, 22, 333"), { 1, 1, 4, 5, 8, 10 })
    t.equal(digits:matches("1, 22, 333", 5, 9), { 5, 5, 8, 9 })
    t.equal(digits:matches("none"), {})
    t.equal(digits:count("1, 22, 333"), 3)
  end,

  ["replace takes a string as it is, or a function"] = function(t)
    local word = compile "([a-z])([a-z]*)"
    t.equal({ word:replace("ab, c", "%1$1") }, { "%1$1, %1$1", 2 })
    t.equal({ word:replace("ab, c", function(all, first, rest) return rest ~= "" and rest .. first .. "<" .. all .. ">" end) }, { "ba<ab>, c", 1 })
    t.equal({ word:replace("", "x") }, { "", 0 })
    t.equal({ word:replace("ab\0cd", "") }, { "\0", 2 })
    t.raises("a function that returns a string, nil or false, it returned a table", word.replace, word, "a", function() return {} end)
  end,

  ["a function may use the same regex"] = function(t)
    local word = compile "[a-z]+"
    t.equal(word:replace("ab cd", function(match) return (word:replace(match, "<" .. match .. ">")) end), "<ab> <cd>")
  end,

  ["options change what matches"] = function(t)
    t.equal({ compile("A.B", { ignore_case = true }):find("xa-b") }, { 2, 4 })
    t.equal(compile("a.b"):find("a\nb"), nil)
    t.equal({ compile("a.b", { dot_all = true }):find("a\nb") }, { 1, 3 })
    t.equal(compile("^b$"):find("a\nb"), nil)
    t.equal({ compile("^b$", { multiline = true }):find("a\nb") }, { 3, 3 })
    t.equal({ compile("a b # c", { extended = true }):find("ab") }, { 1, 2 })
  end,

  ["text is UTF-8, positions are bytes"] = function(t)
    t.equal({ compile("[äö]."):find("xöü!") }, { 2, 5 })
    t.equal({ compile("Ä", { ignore_case = true }):find("xä") }, { 2, 3 })
    t.equal(compile("\\p{Greek}+"):matches("aλβc"), { 2, 5 })
  end,

  ["bytes that are no UTF-8 hide nothing"] = function(t)
    local word = compile "b."
    t.equal(word:matches("\255\254ba\128bö\195"), { 3, 4, 6, 8 })
    t.equal(word:matches(("\128"):rep(50000) .. "ba" .. ("\128"):rep(50000)), { 50001, 50002 })
  end,

  ["what stands before the beginning is seen, nothing after the end"] = function(t)
    t.equal({ compile("(?<!a)b|$"):find("ab", 2) }, { nil })
    t.equal({ compile("^b"):find("ab", 2) }, { nil })
    t.equal({ compile("b(?!c)"):find("abc", 1, 2) }, { 2, 2 })
    t.equal(compile("b$"):find("abc", 1, 2), nil)
  end,

  ["empty matches are left out"] = function(t)
    t.equal(compile("x*"):matches("axxä"), { 2, 3 })
    t.equal(compile("(?=ä)"):count(("ä"):rep(100)), 0)
  end,

  ["a match is found wherever it stands in a long text"] = function(t)
    local key = compile "(?<![a-z])key-[0-9]{4}(?![0-9])"
    for _, place in ipairs { 0, 1, 8180, 8185, 8190, 8191, 8192, 8193, 16380, 16384, 16390, 99991 } do
      for _, filling in ipairs { "-", "ä" } do
        local before = filling:rep(math.floor(place / #filling))
        local text = before .. "key-1234" .. ("-"):rep(20000)
        t.equal(key:matches(text), { #before + 1, #before + 8 }, place .. filling)
      end
    end
  end,

  ["a match longer than the longest raises"] = function(t)
    t.raises("a match is longer than 100 bytes", function() compile("a+", { longest = 100 }):count(("a"):rep(10000)) end)
    t.equal(compile("a{50}", { longest = 100 }):count(("a"):rep(10000)), 200)
    t.raises("longest: expected a number from 1", regex.compile, "a", { longest = 0 })
  end,

  ["a pattern that explodes raises, and takes no longer than that"] = function(t)
    t.raises("takes too many steps on this text", function() compile("(a+)+[^a]c"):find(("a"):rep(5000) .. "bbc") end)
    t.raises("takes too many steps", function() compile("(?:(?:a|a)*)*b"):find(("a"):rep(7000) .. "-b" .. ("a"):rep(100000)) end)
  end,

  ["a bad pattern is told with its place"] = function(t)
    local compiled, message = regex.compile("ab(c")
    t.equal(compiled, nil)
    t.matches(message, "at byte 5 of the pattern: missing closing parenthesis", true)
    t.matches(select(2, regex.compile("\\C")), "\\C", true)
    t.matches(select(2, regex.compile("\255")), "UTF", true)
    t.matches(select(2, regex.compile(("a"):rep(20000))), "longer than", true)
    t.matches(select(2, regex.compile("((((a{1000}){1000}){1000}){1000})")), "too large", true)
  end,

  ["wrong arguments are named"] = function(t)
    t.raises("llmproxy.regex.compile: pattern: expected a string, got nothing", regex.compile)
    t.raises("llmproxy.regex.compile: options: expected a table, got string", regex.compile, "a", "i")
    local any = compile "a"
    t.raises("llmproxy.regex:find: text: expected a string, got nil", any.find, any, nil)
    t.raises("llmproxy.regex:find: regex: expected a regex", any.find, "a", "b")
    t.raises("llmproxy.regex:matches: init: expected a number", any.matches, any, "a", "b")
    t.raises("llmproxy.regex:replace: replacement: expected a string or a function", any.replace, any, "a")
  end,
}
