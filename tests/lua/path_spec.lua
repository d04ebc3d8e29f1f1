local path = require "llmproxy.path"

return {
  ["a path is names with dots, and anything else in brackets"] = function(t)
    t.equal(path.parse "a", { "a" })
    t.equal(path.parse "llm.usage.x-y_1", { "llm", "usage", "x-y_1" })
    t.equal(path.parse "output[12].content", { "output", 12, "content" })
    t.equal(path.parse "a['b.c']['d']", { "a", "b.c", "d" })
    t.equal(path.parse '["x y"].z', { "x y", "z" })
    t.equal(path.parse '["it\'s"]', { "it's" })
  end,

  ["what is none is refused with its place"] = function(t)
    for text, message in pairs {
      [""] = 'expected a key at ""', ["."] = 'expected a key at "."', ["a."] = "expected a key behind the last dot", ["a..b"] = 'expected a key at ".b"',
      ["a b"] = 'expected a dot or a bracket at " b"', ["a[0]"] = 'expected a key at "[0]"', ["a[x]"] = 'expected a key at "[x]"', ["a['b]"] = "expected a key at \"['b]\"",
      ["a.[1]"] = "expected a name behind a dot, got a bracket", ["a[1]b"] = 'expected a dot or a bracket at "b"',
    } do
      local keys, why = path.parse(text)
      t.equal({ keys, why }, { nil, message }, text)
    end
  end,

  ["gets, sets and removes"] = function(t)
    local value = { a = { b = { 1, 2, 3 } }, s = "text" }
    t.equal(path.get(value, { "a", "b", 2 }), 2)
    t.equal(path.get(value, { "s", "b" }), nil)
    t.equal(path.get(value, { "x", "b" }), nil)
    path.set(value, { "x", "y" }, 5)
    t.equal(value.x, { y = 5 })
    t.raises("cannot set s.y: s is a string", path.set, value, { "s", "y" }, 1)
    t.equal(path.remove(value, { "a", "b", 1 }), 1)
    t.equal(value.a.b, { 2, 3 })
    t.equal(path.remove(value, { "a", "b", 7 }), nil)
    t.equal(path.remove(value, { "s", "y" }), nil)
    t.equal(path.remove(value, { "x", "y" }), 5)
    t.equal(value, { a = { b = { 2, 3 } }, s = "text", x = {} })
  end,
}
