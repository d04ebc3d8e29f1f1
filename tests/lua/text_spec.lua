local text = require "llmproxy.text"

return {
  ["trims, splits and compares"] = function(t)
    t.equal({ text.trim "  a b\t\r\n", text.trim " \n ", text.trim "", text.trim "x" }, { "a b", "", "", "x" })
    t.equal(text.split("a,b,,c", ","), { "a", "b", "", "c" })
    t.equal(text.split("", ","), { "" })
    t.equal(text.split("a.b.", "."), { "a", "b", "" })
    t.equal(text.split("a--b", "--"), { "a", "b" })
    t.equal({ text.starts_with("abc", "ab"), text.starts_with("abc", "b"), text.starts_with("a", "ab"), text.starts_with("a", "") }, { true, false, false, true })
    t.equal({ text.ends_with("abc", "bc"), text.ends_with("abc", "b"), text.ends_with("c", "bc"), text.ends_with("a", "") }, { true, false, false, true })
  end,

  ["a long run of blanks takes no longer than its length"] = function(t)
    local blanks = (" "):rep(1000000)
    t.equal(#text.trim(blanks .. "x" .. blanks .. "y"), 1000002)
    t.equal(text.trim(blanks), "")
  end,

  ["an escaped pattern fits its text and nothing else"] = function(t)
    local all = {}
    for byte = 0, 255 do all[#all + 1] = string.char(byte) end
    local every = table.concat(all)
    t.equal(every:find("^" .. text.escape_pattern(every) .. "$"), 1)
    t.equal(("axb"):find(text.escape_pattern "a.b"), nil)
  end,

  ["a cut goes between two characters"] = function(t)
    t.equal({ text.truncate("grün", 4), text.truncate("grün", 3), text.truncate("grün", 5), text.truncate("grün", 0) }, { "grü", "gr", "grün", "" })
    t.equal({ text.truncate("abcdefgh", 6, "…"), text.truncate("abc", 3, "…"), text.truncate("abcdef", 2, "…") }, { "abc…", "abc", "ab" })
    t.equal(text.truncate("a€€", 6), "a€")
  end,

  ["arguments are checked"] = function(t)
    t.raises("llmproxy.text.trim: value: expected a string, got nil", text.trim)
    t.raises("llmproxy.text.split: separator: expected a string that is not empty", text.split, "a", "")
    t.raises("llmproxy.text.truncate: bytes: expected a number of at least 0", text.truncate, "a", -1)
  end,
}
