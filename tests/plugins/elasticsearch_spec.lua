local json = require "llmproxy.json"

local URL = "https://search.example"

local function results(list)
  local items = {}
  for index, result in ipairs(list) do items[index] = { create = result } end
  return { status = 200, body = { errors = true, items = json.array(items) } }
end

local function outcomes_of(answers, count, settings)
  local cluster = http.fake(URL, answers)
  local list = {}
  for index = 1, count do list[index] = event { time = ("2026-01-0%dT00:00:00Z"):format(index) } end
  local given = { "elasticsearch", url = URL, gzip = false }
  for key, value in pairs(settings or {}) do given[key] = value end
  local result = run_pipeline { dispatcher = given, events = list, retry = { max_age = 600 } }
  local words = {}
  for index, outcome in ipairs(result.outcomes) do words[index] = outcome.result end
  return words, cluster, result
end

describe("elasticsearch", function()
  it("writes pairs of lines, the last one ended", function()
    local words, cluster = outcomes_of({ status = 200, body = '{"errors":false}' }, 2, { index = "llm-%Y.%m.%d", api_key = "key" })
    expect(words):to_equal { "delivered", "delivered" }
    local request = cluster.requests[1]
    expect({ request.method, request.path, request.query }):to_equal { "POST", "/_bulk", "filter_path=errors,items.*.status,items.*.error" }
    expect({ request.headers["content-type"], request.headers.authorization }):to_equal { "application/x-ndjson", "ApiKey key" }
    local lines = {}
    for line in request.body:gmatch("(.-)\n") do lines[#lines + 1] = json.decode(line) end
    expect(request.body:sub(-1)):to_be("\n")
    expect(#lines):to_be(4)
    expect(lines[1].create._index):to_be("llm-2026.01.01")
    expect(lines[3].create._index):to_be("llm-2026.01.02")
    expect(lines[2].id):to_be(lines[1].create._id)
    expect(lines[2]["@timestamp"]):to_be("2026-01-01T00:00:00.000000Z")
  end)

  it("takes each document by its own result", function()
    local words, cluster, result = outcomes_of({
      results {
        { status = 201 }, { status = 409, error = { type = "version_conflict_engine_exception", reason = "there" } },
        { status = 429, error = { type = "es_rejected_execution_exception", reason = "busy" } },
        { status = 400, error = { type = "document_parsing_exception", reason = "failed to parse field [status]" } },
      },
      results { { status = 201 } },
    }, 4)
    expect(words):to_equal { "delivered", "delivered", "delivered", "failed" }
    expect(result.outcomes[4].error):to_be("document_parsing_exception: failed to parse field [status]")
    local _, count = cluster.requests[2].body:gsub("\n", "")
    expect(count):to_be(2)
  end)

  it("keeps everything while the cluster takes nothing", function()
    for _, blocked in ipairs {
      results { { status = 403, error = { type = "cluster_block_exception", reason = "flood stage" } }, { status = 201 } },
      results { { status = 404, error = { type = "index_not_found_exception", reason = "no such index" } }, { status = 201 } },
      { status = 200, body = "<html>Please log in</html>" }, { status = 200, body = "{}" }, 401, 403, 404,
    } do
      local words, cluster, result = outcomes_of({ blocked, { status = 200, body = '{"errors":false}' } }, 2)
      expect(words):to_equal { "delivered", "delivered" }
      expect(#cluster.requests):to_be(2)
      expect(result.seconds):to_be_above(50)
    end
  end)

  it("tries again what may work later, and halves what is too large", function()
    for _, answer in ipairs { 429, 503, { error = "Connection refused" }, results { { status = 201 } }, { status = 200, body = '{"errors":true,"items":[{"create":{}},{"create":{}}]}' } } do
      local words = outcomes_of({ answer, { status = 200, body = '{"errors":false}' } }, 2)
      expect(words):to_equal { "delivered", "delivered" }
    end
    local words, cluster = outcomes_of(function(request) return select(2, request.body:gsub("\n", "")) > 2 and 413 or { status = 200, body = '{"errors":false}' } end, 3)
    expect(words):to_equal { "delivered", "delivered", "delivered" }
    expect(#cluster.requests):to_be(5)
  end)

  it("leaves a @timestamp of one's own alone, and needs no id", function()
    local cluster = http.fake(URL, { status = 200, body = '{"errors":false}' })
    run_pipeline { transforms = { function() return { ["@timestamp"] = "x", n = 1 } end }, dispatcher = { "elasticsearch", url = URL, gzip = false }, events = { event() } }
    expect(cluster.requests[1].body):to_be('{"create":{"_index":"llm-events"}}\n{"@timestamp":"x","n":1}\n')
  end)

  it("refuses settings that cannot work", function()
    expect(function() plugin("dispatcher", "elasticsearch", { url = URL, api_key = "a", username = "b" }) end):to_raise "api_key and username are two ways"
    expect(function() plugin("dispatcher", "elasticsearch", { url = URL, index = "x-%Q" }) end):to_raise "format: '%Q' is none of"
  end)
end)
