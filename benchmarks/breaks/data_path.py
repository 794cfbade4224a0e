"""Breaks in shards, decoding of pictures, and exports that tests start from."""

from benchmarks.breaks.planted import Break

BREAKS = [
    Break(
        "jpeg takes damaged files",
        "capkit/data/jpeg.py",
        'rgb = simplejpeg.decode_jpeg(data, "RGB", min_height=least[0], min_width=least[1])',
        'rgb = simplejpeg.decode_jpeg(data, "RGB", min_height=least[0], min_width=least[1], strict=False)',
        ("tests/data/test_jpeg.py::test_a_damaged_file_is_read_or_refused_as_by_pillow",),
    ),
    Break(
        "jpeg turned the wrong way",
        "capkit/data/images.py",
        "6: Turn(True, False, True),",
        "6: Turn(True, True, False),",
        ("tests/data/test_jpeg.py::test_pixels_equal_pillows",),
    ),
    Break(
        "jpeg fast dct changes pixels",
        "capkit/data/jpeg.py",
        'rgb = simplejpeg.decode_jpeg(data, "RGB", min_height=least[0], min_width=least[1])',
        (
            'rgb = simplejpeg.decode_jpeg(data, "RGB", fastdct=True, fastupsample=True, min_height=le'
            "ast[0], min_width=least[1])"
        ),
        ("tests/data/test_jpeg.py::test_pixels_equal_pillows",),
    ),
    Break(
        "reduced part rounded to whole pixels",
        "capkit/data/transforms.py",
        "left, top, right, bottom = (edge * scale for edge in edges)",
        "left, top, right, bottom = (float(round(edge * scale)) for edge in edges)",
        ("tests/data/test_jpeg.py::test_a_reduced_picture_gives_the_same_view",),
    ),
    Break(
        "reduced without the crops part",
        "capkit/data/transforms.py",
        "return max(new / old for new, old in zip(placed.resized, placed.part, strict=True))",
        "return max(new / old for new, old in zip(placed.resized, (height, width), strict=True))",
        ("tests/data/test_jpeg.py::test_the_fraction_is_that_of_the_part_which_is_taken",),
    ),
    Break(
        "shards trust changed bytes",
        "capkit/data/sources/shards.py",
        'if hash_of(data) != row["hash"]:',
        'if len(data) != row["size"]:',
        ("tests/data/test_shards.py::test_changed_or_lost_bytes_are_told_and_never_decoded",),
    ),
    Break(
        "shards leave out the unusable",
        "capkit/data/shard_writer.py",
        (
            "            entries.append(tar.add(record, picture) if reason is None else Entry(row_of("
            "record), unusable=reason))"
        ),
        "            if reason is None:\n                entries.append(tar.add(record, picture))",
        ("tests/data/test_shards.py::test_batches_are_those_of_the_pictures_folder",),
    ),
    Break(
        "shards tars depend on the clock",
        "capkit/data/webdataset.py",
        "        info.size = len(data)\n",
        "        info.size, info.mtime = len(data), __import__('time').time_ns() // 1000\n",
        ("tests/data/test_shards.py::test_after_a_kill_the_same_command_gives_the_bytes_of_an_undisturbed_run",),
    ),
    Break(
        "shards order of finishing",
        "capkit/data/shard_writer.py",
        (
            "            entries = _entries(folder, [task for task in tasks if task.split == split])\n"
            "            abouts[split]"
        ),
        (
            "            entries = _entries(folder, [task for task in reversed(tasks) if task.split ="
            "= split])\n            abouts[split]"
        ),
        ("tests/data/test_shards.py::test_records_pictures_and_order_are_the_sources",),
    ),
    Break(
        "shards fingerprint of their own",
        "capkit/data/sources/shards.py",
        "        return self._index.fingerprint\n",
        "        return self._index.fingerprint[::-1]\n",
        ("tests/data/test_shards.py::test_a_checkpoint_of_the_pictures_folder_goes_on_with_the_shards",),
    ),
    Break(
        "cut tar taken as whole",
        "capkit/data/webdataset.py",
        "if os.pread(file.fileno(), tarfile.BLOCKSIZE, tar.offset) != bytes(tarfile.BLOCKSIZE):",
        "if tar.offset < 0:",
        ("tests/data/test_shards.py::test_a_damaged_tar_is_named",),
    ),
    Break(
        "export rounds before adapters are merged, to the wrong dtype",
        "capkit/tasks/export.py",
        '"float16": torch.float16,',
        '"float16": torch.bfloat16,',
        ("tests/tasks/test_export.py",),
    ),
    Break(
        "an export's weights of other shapes or names pass",
        "capkit/checkpoint/export_reader.py",
        "if expected != (found := {name: value.shape for name, value in rest.items()}):",
        "if False and expected != (found := {name: value.shape for name, value in rest.items()}):",
        ("tests/tasks/test_export.py",),
    ),
    Break(
        "float16 overflows without a word",
        "capkit/checkpoint/exported.py",
        "(found := float(value.abs().max())) > largest:",
        "(found := float(value.abs().min())) > largest:",
        ("tests/tasks/test_export.py",),
    ),
    Break(
        "a caption that occurs twice counts once",
        "capkit/text/tokenizers.py",
        'Counter(piece for caption in captions for piece in caption.split(" "))',
        'Counter(piece for caption in set(captions) for piece in caption.split(" "))',
        ("tests/text/test_text.py",),
    ),
    Break(
        "stated facts of generic captions lack colours",
        "capkit/sceneworld/sources/generic_captions.py",
        'stated_facts(scene, "short", self._stated)',
        'stated_facts(scene, "short", replace(self._stated, color=False))',
        (
            "tests/sceneworld/test_generic_captions.py",
            "tests/sceneworld/test_generic_scene_captions.py",
        ),
    ),
    Break(
        "a debug run validates everything",
        "configs/debug/tiny.yaml",
        "  limit_val_batches: 1\n",
        "",
        ("tests/tasks/test_fit.py",),
    ),
    Break(
        "the trainer's limit of validation is overwritten",
        "capkit/train/session.py",
        'cfg.trainer.get("limit_val_batches", 1.0)',
        "1.0",
        ("tests/tasks/test_fit.py",),
    ),
    Break(
        "a start is trained by other words than are declared",
        "benchmarks/starts.py",
        '"weak": _captioner("generic_mle_sceneworld", 500)',
        '"weak": _captioner("generic_mle_sceneworld", 700)',
        ("tests/benchmarks/test_benchmarks_starts.py",),
    ),
    Break(
        "the projection of an exported dual encoder is read transposed",
        "capkit/checkpoint/export_reader.py",
        "    model.load_state_dict(rest, strict=False)",
        (
            "    model.load_state_dict({n: v.T if v.ndim == 2 and v.shape[0] == v.shape[1] else v for"
            " n, v in rest.items()}, strict=False)"
        ),
        (
            "tests/effects/test_starts.py",
            "tests/tasks/test_export.py",
        ),
    ),
]
