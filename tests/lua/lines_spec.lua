local lines = require "llmproxy.config.lines"

local TEXT = [==[
-- return { listen = "not this" }
local shared = {
  name = "shared", dispatcher = { "file", path = "x" } }
local function made() return { listen = 1 } end
--[[ return { listen = "nor this"
]]
return {
  listen = "127.0.0.1:8080", ["admin"] = [[
    }{ ]],
  routes = {
    { name = "a", prefix = "/", upstream = "http://x/}",
      headers = { ["x-one"] = "1",
                  ["x-two"] = "2" } },
    { name = "b";
      prefix = "/b" },
  },
  observability = {
    pipelines = {
      shared,
      { name = "two",
        transforms = { "llm", function(event)
          if event.x then return { a = 1 } end
          return event
        end, { "filter",
               keep = { { status = { at_least = 1 } },
                        { path = "\"}" } } } },
        dispatcher = make { path = "y" } },
      [3] = { name = "three" },
    },
  },
}
]==]

return {
  ["a key's line is found wherever it stands"] = function(t)
    for path, line in pairs {
      listen = 8, admin = 8, routes = 10, ["routes[1].upstream"] = 11, ["routes[1].headers"] = 12, ['routes[1].headers["x-two"]'] = 13, ["routes[2].prefix"] = 15,
      ["observability.pipelines[2].transforms[1]"] = 21, ["observability.pipelines[2].transforms[2]"] = 21, ["observability.pipelines[2].transforms[3]"] = 24,
      ["observability.pipelines[2].transforms[3].keep[2]"] = 26, ["observability.pipelines[2].transforms[3].keep[1].status"] = 25, ["observability.pipelines[3].name"] = 28,
    } do t.equal(lines.of(TEXT, path), line, path) end
  end,

  ["what cannot be found ends at the last part that can"] = function(t)
    t.equal(lines.of(TEXT, "observability.pipelines[1].dispatcher.path"), 19)
    t.equal(lines.of(TEXT, "observability.pipelines[2].dispatcher.path"), 27)
    t.equal(lines.of(TEXT, "observability.pipelines[2].nothing"), 20)
    t.equal(lines.of(TEXT, "nothing"), nil)
    t.equal(lines.of(TEXT, "routes[1].upstream.deeper"), 11)
  end,

  ["no text makes it raise"] = function(t)
    for _, text in ipairs {
      "", "return", "return {", "return { a", "return { a =", "return { [", 'return { ["a', "return { [[", "--[[", "return }", "}}}}{", "return { a = function() end",
      "return { a = { b = } } }", "return nil",
    } do
      local line = lines.of(text, "a.b[1]")
      t.ok(line == nil or line == 1, text)
    end
    t.equal(lines.of("return { a = 1 }", "a b: c"), nil)
    t.equal(lines.of("return { a = 1 }", ""), nil)
    -- Every beginning of a text, and every text with a piece taken out.
    for cut = 1, #TEXT do
      lines.of(TEXT:sub(1, cut), "observability.pipelines[2].transforms[3].keep[2]")
      lines.of(TEXT:sub(1, cut) .. TEXT:sub(cut + 7), "routes[2].prefix")
    end
  end,

  ["long texts take no longer than their length"] = function(t)
    local entries = {}
    for index = 1, 20000 do entries[index] = ("{ name = \"r%d\", prefix = \"/%d/\" }"):format(index, index) end
    t.equal(lines.of("return { routes = {\n" .. table.concat(entries, ",\n") .. "} }", "routes[20000].prefix"), 20001)
  end,
}
